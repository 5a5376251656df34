"""Sampling flags of `generate` reach the sampler."""

from typing import Any

import pytest
import torch

import guided_dlm.models
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.pipeline import GuidedPipeline

FLAGS = {"corrector": "p2", "top_p": 0.9, "guidance_scale": 2.0, "particles": 4, "block_length": 3}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_reaches_the_sampler(run: Any, model: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[dict[str, Any]] = []
    call = GuidedPipeline.__call__

    def recorded(self: GuidedPipeline, *arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return call(self, *arguments, **options)

    monkeypatch.setattr(GuidedPipeline, "__call__", recorded)
    result = run("generate", "Near", "--model", model, "--steps", 3, f"--{name.replace('_', '-')}", FLAGS[name])
    assert result.status == 0, result.err
    assert len(result.out.splitlines()) == 1
    (options,) = asked
    assert options[name] == FLAGS[name]
    assert all(options[other] in (None, 1) for other in FLAGS if other != name)


def test_flags_that_cannot_be_combined_are_one_sentence(run: Any, model: str) -> None:
    result = run("generate", "--model", model, "--corrector", "p2", "--particles", 4)
    assert (result.status, result.out) == (1, "")
    assert "particles=4 with a corrector" in result.err and "Traceback" not in result.err


def test_dtype_is_what_the_model_computes_in(run: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[torch.dtype] = []
    call = GuidedPipeline.__call__

    def recorded(self: GuidedPipeline, *arguments: Any, **options: Any) -> Any:
        assert isinstance(self.denoiser, TransformerDenoiser)
        found.append(self.denoiser.model.dtype)
        return call(self, *arguments, **options)

    monkeypatch.setattr(GuidedPipeline, "__call__", recorded)
    monkeypatch.setattr(guided_dlm.models, "multiplies_bf16", lambda device: True)
    result = run("generate", "Near", "--model", model, "--steps", 3, "--dtype", "bfloat16")
    assert result.status == 0, result.err
    assert found == [torch.bfloat16]
    result = run("generate", "--model", model, "--dtype", "int3")
    assert (result.status, result.out) == (1, "")
    assert "dtype='int3'" in result.err and "bfloat16" in result.err and "Traceback" not in result.err


def test_numbers_that_a_device_emulates_are_said_to_be_slow(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided_dlm.models, "multiplies_bf16", lambda device: False)
    with pytest.warns(UserWarning, match="cpu has no instructions for it"):
        GuidedPipeline.from_pretrained(model, dtype="bfloat16")
