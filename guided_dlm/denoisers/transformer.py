"""Adapters of the project's own `DiffusionTransformer`: one that fills masks, one that undoes uniform noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.base import Denoiser
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import MaskedProcess, Process, UniformProcess
from guided_dlm.processes.schedules import schedule
from guided_dlm.sampling_defaults import SamplingDefaults
from guided_dlm.vocabulary import Vocabulary

_CERTAIN = 1e4  # the logit of padding that is not read, where all others have 0: enough at any temperature
SEEN_TAIL = 4  # padding after the end of text that is read where config.reads_tail is off


class TransformerDenoiser(Denoiser):
    """A `DiffusionTransformer` that fills masks, with its vocabulary; reads the whole canvas at once.

    Where `config.reads_tail` is off, it reads no more than `SEEN_TAIL` tokens of the padding after everything else, and
    says with certainty that padding stands where it does: half of a canvas often costs nothing so.
    """

    closed_tail = True
    undoes: ClassVar[str] = "masked"
    model_class: ClassVar[type[DiffusionTransformer]] = DiffusionTransformer

    def __init__(self, model: DiffusionTransformer, vocabulary: Vocabulary) -> None:
        """Take a model in evaluation mode.

        Raises:
            InvalidRequest: the model is autoregressive or undoes another noise, or its vocabulary does not fit it.
        """
        if model.config.process != self.undoes:
            raise InvalidRequest(
                f"This model undoes {model.config.process} noise and {type(self).__name__} is for {self.undoes} noise; "
                "load it with GuidedPipeline.from_pretrained, which finds the adapter."
            )
        if model.config.causal:
            raise InvalidRequest(
                "This checkpoint is autoregressive (config.causal); train a masked model from it first."
            )
        if model.config.tail != "scored":
            raise InvalidRequest(
                f"config.tail={model.config.tail!r}: only models that were trained on the padding after the text "
                '("scored") are supported so far.'
            )
        if self.undoes in ("masked", "block") and vocabulary.mask_id is None:
            raise InvalidRequest("Masked diffusion needs a tokenizer with a mask token.")
        if model.config.vocab_size != len(vocabulary):
            raise InvalidRequest(
                f"The model predicts {model.config.vocab_size} tokens, but the vocabulary has {len(vocabulary)}; "
                "load the tokenizer that the model was trained with."
            )
        self.model, self.vocabulary = model.eval(), vocabulary
        file = str(Path(model.config.name_or_path or "") / "config.json")
        self.sampling = SamplingDefaults.read(getattr(model.config, "sampling", None), file)
        if self.sampling.clean is not None and self.undoes != "gaussian":
            raise InvalidRequest(f"{file}: sampling.clean is for Gaussian noise, not {self.undoes}; leave it out.")
        self.process = self._process()
        self.capacity, self.tail = model.config.max_position_embeddings, model.config.tail
        writable_V = torch.from_numpy(vocabulary.writable).to(self.device)
        self._dead = (~writable_V).nonzero()[:, 0]

    def _process(self) -> Process:
        assert self.vocabulary.mask_id is not None  # __init__ looked
        return MaskedProcess(mask_id=self.vocabulary.mask_id)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Self:
        """Load a folder that `guided-dlm train` wrote, or one of the same form from the Hub.

        Called on `TransformerDenoiser` it returns the adapter that fits the model's noise, which may be a subclass.

        Raises:
            InvalidRequest: it holds another kind of model.
        """
        from guided_dlm.denoisers import block, gaussian, simplex  # noqa: F401  (tell AutoConfig their model types)

        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, DiffusionTransformerConfig):
            raise InvalidRequest(
                f"{str(folder)!r} holds a {config.model_type!r} model; only those that `guided-dlm train` writes are "
                "supported."
            )
        adapter: type[Any] = adapter_of(config) if cls is TransformerDenoiser else cls
        shown = is_progress_bar_enabled()
        disable_progress_bar()  # a bar for a file of ten megabytes is noise in every script
        try:
            model = adapter.model_class.from_pretrained(folder, dtype=dtype)
        finally:
            if shown:
                enable_progress_bar()
        model.to(torch.device(device))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cast(Self, adapter(model, Vocabulary.from_tokenizer(tokenizer, config.never_written_ids)))

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return torch.device(self.model.device)

    @property
    def embedding_VD(self) -> Tensor:
        """The input embedding, a row for each token."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table.detach()

    @torch.inference_mode()
    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return float32 logits `[B, L, V]`; the model needs no time."""
        read_BL = self._read(canvas)
        if read_BL is None:
            tokens, visible = self._inputs(canvas)
            return self._of_completion(self.model(input_ids=tokens, attention_mask=visible).logits, canvas), carry
        return self._logits_at(read_BL[:, : canvas.tokens_BL.shape[1]], canvas, read_BL), carry

    @torch.inference_mode()
    def at_open(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """As a call, without most of the last layer at written positions: their logits mean nothing then."""
        if type(self).__call__ is not TransformerDenoiser.__call__:
            return self(canvas, t, carry)
        read_BL = self._read(canvas)
        if read_BL is None:
            read_BL = torch.ones_like(self._written(canvas), dtype=torch.bool)
        return self._logits_at(self.process.known(canvas) < 0, canvas, read_BL), carry

    def _logits_at(self, here_BL: Tensor, canvas: Canvas, read_BT: Tensor) -> Tensor:
        """Return logits at some of the positions that are read, and certain padding at the others."""
        tokens = torch.cat([canvas.prompt_BP, self._written(canvas)], dim=1)
        (B, L), V = canvas.tokens_BL.shape, len(self.vocabulary)
        before, after = canvas.prompt_BP.shape[1], read_BT.shape[1] - L
        hidden_ND = self.model.trunk_at(
            self.model.embedding(tokens),
            torch.cat([canvas.visible_BP, read_BT], dim=1),
            F.pad(here_BL, (before, after)),
        )
        logits_BLV = torch.zeros(B, L, V, device=tokens.device)
        if self.vocabulary.pad_id is not None:
            logits_BLV[..., self.vocabulary.pad_id] = _CERTAIN
        logits_BLV[here_BL] = self.model.read(hidden_ND).float()
        return logits_BLV.index_fill_(-1, self._dead, -torch.inf)

    def _read(self, canvas: Canvas) -> Tensor | None:
        """Return which positions of the completion and of what is ahead are read, bool `[B, L + R]`; None for all."""
        if self.model.config.reads_tail or self.vocabulary.pad_id is None:
            return None
        tokens_BT = self._written(canvas)
        place_T = torch.arange(1, tokens_BT.shape[1] + 1, device=tokens_BT.device)
        size_B1 = ((tokens_BT != self.vocabulary.pad_id) * place_T).amax(-1, keepdim=True)
        read_BT = place_T <= size_B1 + SEEN_TAIL
        return None if bool(read_BT.all()) else read_BT

    def _written(self, canvas: Canvas) -> Tensor:
        ahead_BR = canvas.tokens_BL[:, :0] if canvas.ahead_BR is None else canvas.ahead_BR
        return torch.cat([canvas.tokens_BL, ahead_BR], dim=1)

    def _inputs(self, canvas: Canvas) -> tuple[Tensor, Tensor | None]:
        """Return the tokens of prompt, completion and what is ahead, and where they are no left padding, if any is."""
        written = self._written(canvas)
        tokens = torch.cat([canvas.prompt_BP, written], dim=1)
        if bool(canvas.visible_BP.all()):
            return tokens, None
        return tokens, F.pad(canvas.visible_BP, (0, written.shape[1]), value=True)

    def _of_completion(self, logits: Tensor, canvas: Canvas) -> Tensor:
        """Return the completion's part of the logits, without tokens that no completion holds."""
        begin, length = canvas.prompt_BP.shape[1], canvas.tokens_BL.shape[1]
        return logits[:, begin : begin + length].float().index_fill(-1, self._dead, -torch.inf)


def noise_levels(canvas: Canvas, t: float) -> Tensor:
    """Return the noise level of each position of prompt and completion, float32 `[B, P + L]`: 0 at what is given."""
    given = torch.cat([torch.ones_like(canvas.visible_BP), canvas.fixed_BL], dim=1)
    return torch.where(given, 0.0, t).float()


class UniformDenoiser(TransformerDenoiser):
    """A `DiffusionTransformer` that undoes uniform noise.

    Its net says what stands at a position given all the others (leave-one-out, 2412.10193); times what the token that
    stands there says for itself, q(z_l | x0_l), that is the full posterior p(x0_l | z_t) which the sampler asks for.
    """

    undoes = "uniform"

    def _process(self) -> Process:
        self._noise = uniform_process(self.model.config)
        return self._noise

    @torch.inference_mode()
    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return float32 logits `[B, L, V]` at noise level `t`."""
        tokens, visible = self._inputs(canvas)
        net = self.model(input_ids=tokens, attention_mask=visible, time_BL=noise_levels(canvas, t))
        logits_BLV = self._of_completion(net.logits, canvas)
        odds = self._noise.log_odds(self.process.schedule(t)).to(logits_BLV)
        z_BL1 = canvas.tokens_BL[..., None]
        return logits_BLV.scatter_add(-1, z_BL1, odds.expand_as(z_BL1)), carry


def uniform_process(config: DiffusionTransformerConfig) -> UniformProcess:
    """Return the noise that a uniform model was trained on: every token but `noiseless_ids`."""
    silent = set(config.noiseless_ids)
    ids = tuple(i for i in range(config.vocab_size) if i not in silent)
    return UniformProcess(size=config.vocab_size, schedule=schedule(config.schedule), token_ids=ids)


def adapter_of(config: DiffusionTransformerConfig) -> type[TransformerDenoiser]:
    """Return the adapter for a model by the noise that it undoes.

    Raises:
        InvalidRequest: this version knows no such noise.
    """
    from guided_dlm.denoisers.block import BlockDenoiser
    from guided_dlm.denoisers.gaussian import GaussianDenoiser
    from guided_dlm.denoisers.simplex import SimplexDenoiser

    known: list[type[TransformerDenoiser]] = [
        TransformerDenoiser,
        UniformDenoiser,
        GaussianDenoiser,
        SimplexDenoiser,
        BlockDenoiser,
    ]
    adapters = {adapter.undoes: adapter for adapter in known}
    if config.process not in adapters:
        raise InvalidRequest(
            f"This model undoes {config.process!r} noise; this version knows {', '.join(sorted(adapters))}."
        )
    return adapters[config.process]
