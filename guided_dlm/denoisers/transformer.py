"""Adapter of the project's own `DiffusionTransformer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.base import Denoiser
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import MaskedProcess
from guided_dlm.vocabulary import Vocabulary


class TransformerDenoiser(Denoiser):
    """A `DiffusionTransformer` with its vocabulary; reads the whole canvas at once."""

    closed_tail = True

    def __init__(self, model: DiffusionTransformer, vocabulary: Vocabulary) -> None:
        """Take a model in evaluation mode.

        Raises:
            InvalidRequest: the model is autoregressive, or its vocabulary has no mask token or another size.
        """
        if model.config.causal:
            raise InvalidRequest(
                "This checkpoint is autoregressive (config.causal); train a masked model from it first."
            )
        if model.config.tail != "scored":
            raise InvalidRequest(
                f"config.tail={model.config.tail!r}: only models that were trained on the padding after the text "
                '("scored") are supported so far.'
            )
        if vocabulary.mask_id is None:
            raise InvalidRequest("Masked diffusion needs a tokenizer with a mask token.")
        if model.config.vocab_size != len(vocabulary):
            raise InvalidRequest(
                f"The model predicts {model.config.vocab_size} tokens, but the vocabulary has {len(vocabulary)}; "
                "load the tokenizer that the model was trained with."
            )
        self.model, self.vocabulary = model.eval(), vocabulary
        self.process = MaskedProcess(mask_id=vocabulary.mask_id)
        self.capacity, self.tail = model.config.max_position_embeddings, model.config.tail
        writable_V = torch.from_numpy(vocabulary.writable).to(self.device)
        self._dead = (~writable_V).nonzero()[:, 0]

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> TransformerDenoiser:
        """Load a folder that `guided-dlm train` wrote, or one of the same form from the Hub.

        Raises:
            InvalidRequest: it holds another kind of model.
        """
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, DiffusionTransformerConfig):
            raise InvalidRequest(
                f"{str(folder)!r} holds a {config.model_type!r} model; only those that `guided-dlm train` writes are "
                "supported."
            )
        shown = is_progress_bar_enabled()
        disable_progress_bar()  # a bar for a file of ten megabytes is noise in every script
        try:
            model = DiffusionTransformer.from_pretrained(folder, dtype=dtype)
        finally:
            if shown:
                enable_progress_bar()
        model.to(torch.device(device))  # type: ignore[arg-type]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(model, Vocabulary.from_tokenizer(tokenizer, config.never_written_ids))

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
        width = canvas.prompt_BP.shape[1]
        tokens = torch.cat([canvas.prompt_BP, canvas.tokens_BL], dim=1)
        visible = None
        if not bool(canvas.visible_BP.all()):
            visible = torch.cat([canvas.visible_BP, torch.ones_like(canvas.tokens_BL, dtype=torch.bool)], dim=1)
        logits_BLV = self.model(input_ids=tokens, attention_mask=visible).logits[:, width:].float()
        return logits_BLV.index_fill(-1, self._dead, -torch.inf), carry
