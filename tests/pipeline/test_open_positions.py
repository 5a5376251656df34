"""Texts are the same whether logits are computed everywhere or only where something is still to be written."""

from typing import Any

import pytest
import torch
from torch import Tensor

from constraints import Energy, Length, Words
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import Constraint, Step
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.samplers.correctors import CORRECTORS
from tests.tiny import tiny_model, word_tokenizer


class Everywhere(TransformerDenoiser):
    def at_open(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        return self(canvas, t, carry)


def pull(relaxed_BLV: Tensor, step: Step) -> Tensor:
    return -relaxed_BLV[:, :, 20:24].sum((-1, -2))


WISH = Length(words=(2, 7)) & Words(include=["pub"], exclude=["The"])
CASES: dict[str, tuple[Any, Constraint | None, dict[str, Any]]] = {
    "free": (None, None, {}),
    "hard": (None, WISH, {}),
    "energy": (None, Energy(pull) & WISH, {}),
    "contrast": ("Near the pub", None, {"guidance_scale": 2.0}),
    "prompts": (["The", None, "Near the pub"], None, {}),
    "mode": (None, WISH, {"temperature": 0.0}),
    "nucleus": (None, None, {"top_p": 0.8, "temperature": 0.7}),
    "particles": (None, WISH, {"particles": 3}),
    "trace": (None, WISH, {"return_trace": True}),
    "blocks": (None, WISH, {"block_length": 6}),
    **{name: (None, WISH, {"corrector": name}) for name in sorted(CORRECTORS)},
}


@pytest.mark.parametrize("reads_tail", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_every_position(case: str, reads_tail: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, wish, options = CASES[case]
    model = tiny_model(24)
    model.config.reads_tail = reads_tail
    fewer: list[bool] = []
    trunk_at = DiffusionTransformer.trunk_at

    def counted(self: DiffusionTransformer, tokens_BLD: Tensor, seen_BL: Tensor, only_BL: Tensor) -> Tensor:
        fewer.append(bool((only_BL < seen_BL).any()))
        return trunk_at(self, tokens_BLD, seen_BL, only_BL)

    monkeypatch.setattr(DiffusionTransformer, "trunk_at", counted)
    vocabulary = Vocabulary.from_tokenizer(word_tokenizer())
    asked = {"num_samples": 6, "steps": 6, "seed": 3, "max_new_tokens": 16} | options
    short = GuidedPipeline(TransformerDenoiser(model, vocabulary))(prompt, wish, **asked)
    assert any(fewer)
    full = GuidedPipeline(Everywhere(model, vocabulary))(prompt, wish, **asked)
    assert short.texts == full.texts
    assert len(set(short.texts)) > (0 if case == "mode" else 1)
    if short.trace is not None and full.trace is not None:
        for one, other in zip(short.trace.steps, full.trace.steps, strict=True):
            torch.testing.assert_close(one.marginal_BL, other.marginal_BL)
