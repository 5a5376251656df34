"""An autoregressive model beside a denoiser: what it says of every position, given those before it, in one pass."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.vocabulary import Vocabulary


class CausalModel:
    """A `DiffusionTransformer` that `guided-dlm train --objective autoregressive` wrote, with its vocabulary."""

    def __init__(self, model: DiffusionTransformer, vocabulary: Vocabulary) -> None:
        """Take a causal model.

        Raises:
            InvalidRequest: the model is not autoregressive.
        """
        if not model.config.causal:
            raise InvalidRequest("This model is not autoregressive; train one with --objective autoregressive.")
        self.model, self.vocabulary = model.eval(), vocabulary
        self._dead = torch.from_numpy(~vocabulary.writable).nonzero()[:, 0].to(model.device)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> CausalModel:
        """Load a folder.

        Raises:
            InvalidRequest: it holds no autoregressive model of this library.
        """
        if not (Path(folder) / "config.json").is_file():
            raise InvalidRequest(f"There is no model in {str(folder)!r}; train one with --objective autoregressive.")
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, DiffusionTransformerConfig) or not config.causal:
            raise InvalidRequest(f"The model in {str(folder)!r} is not one of --objective autoregressive.")
        model: DiffusionTransformer = DiffusionTransformer.from_pretrained(folder, dtype=torch.float32)
        model.to(torch.device(device))  # type: ignore[arg-type]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(model, Vocabulary.from_tokenizer(tokenizer, config.never_written_ids))

    @torch.inference_mode()
    def __call__(self, canvas: Canvas) -> Tensor:
        """Return log p(x_l | prompt, x_<l) of the completion, float32 `[B, L, V]`; only what a text may hold counts.

        Raises:
            InvalidRequest: there is a prompt; such a model was trained on texts from their start.
        """
        if canvas.prompt_BP.shape[1]:
            raise InvalidRequest("An autoregressive model reads texts from their start, and there is a prompt.")
        logits_BLV: Tensor = self.model(input_ids=canvas.tokens_BL).logits.float()
        return logits_BLV.index_fill(-1, self._dead, -torch.inf).log_softmax(-1)
