"""The card of a tiny model: what stands in it, what is named as left out, and what is refused before any sampling."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import SENTENCES, save_tiny_model, small_recipe, tiny_model, word_tokenizer
from transformers import AutoTokenizer

from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.errors import GuidedError, InvalidRequest
from guided_dlm.evaluation.card import HELD_OUT, SAMPLES, TRAINING
from guided_dlm.evaluation.model import EVALUATIONS, CardRequest, evaluate_model, spread
from guided_dlm.pipeline import GuidedPipeline
from guided_dlm.training.data import encode_texts
from guided_dlm.training.labels import read_labelled
from guided_dlm.training.pairs import encode_pairs
from guided_dlm.training.recipe import train
from guided_dlm.training.trainer import OBJECTIVES, evaluate_masked

Request = Callable[..., CardRequest]


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Requests for a tiny model with all its files."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "held.txt").write_text("\n".join(SENTENCES[:4]), encoding="utf-8")
    (folder / "train.txt").write_text("\n".join(SENTENCES[1:]), encoding="utf-8")
    save_tiny_model(folder / "tiny", canvas=16)
    tiny_model(causal=True).save_pretrained(folder / "judge")
    word_tokenizer().save_pretrained(folder / "judge")
    whole = CardRequest(
        model=str(folder / "tiny"), samples=4, steps=3, judge=str(folder / "judge"),
        validation=str(folder / "held.txt"), training=str(folder / "train.txt"),
    )  # fmt: skip
    return lambda **changes: replace(whole, **changes)


def test_every_figure_stands_beside_that_of_human_text(request_of: Request, tmp_path: Path) -> None:
    out, plot = tmp_path / "cards", tmp_path / "plots" / "lengths.png"
    card = evaluate_model(request_of(), out=out, plot=plot)
    figures = card.figures
    assert len(card.left_out) == 1 and "schema.json" in card.left_out[0]
    assert set(figures["judge, nats per token"]) == {SAMPLES, HELD_OUT, TRAINING}
    assert set(figures["bound, nats per token"]) == {HELD_OUT, TRAINING}
    assert figures["verbatim training texts, share"][HELD_OUT] == 3 / 4
    assert figures["copied run, longest"][HELD_OUT] == len(SENTENCES[2].split())
    mean = sum(len(text.split()) for text in SENTENCES[:4]) / 4
    assert figures["words, mean"][HELD_OUT] == mean
    ratio = figures["words, samples' mean over this mean"][HELD_OUT]
    assert ratio == pytest.approx(figures["words, mean"][SAMPLES] / mean)
    written = json.loads((out / "tiny.json").read_text())
    assert {row.pop("figure"): row for row in written["rows"]} == figures
    assert written["conditions"]["samples"] == 4 and written["left_out"] == card.left_out
    assert written["samples"] == card.samples and len(card.samples) == 4 and f"1. {card.samples[0]}" in card.markdown()
    text = (out / "tiny.md").read_text(encoding="utf-8")
    assert text == card.markdown() and all(f"| {name} " in text for name in figures)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_bound_is_the_one_that_the_trainer_validates_with(request_of: Request) -> None:
    tokenizer, model = word_tokenizer(), tiny_model(canvas=16).half().float()
    examples = encode_texts(spread(SENTENCES[:4], 4), tokenizer, 16)
    expected = evaluate_masked(model, examples, tokenizer.pad_token_id, passes=4)
    card = evaluate_model(request_of(judge=None, training=None))
    for name, value in expected.items():
        assert card.figures[f"{name}, nats per token"] == {HELD_OUT: pytest.approx(value, abs=1e-5)}


def test_each_kind_of_model_that_can_be_trained_has_its_bound_evaluated() -> None:
    assert set(EVALUATIONS) == set(OBJECTIVES) - {"autoregressive"}  # which is no diffusion model


def test_what_lacks_its_file_is_named_as_left_out(request_of: Request) -> None:
    card = evaluate_model(request_of(judge=None, validation=None, training=None))
    assert all(set(values) == {SAMPLES} for values in card.figures.values())
    assert not any(name.startswith(("judge", "bound", "copied")) for name in card.figures)
    for option in ("--judge", "--validation", "--training"):
        assert f"({option})" in card.markdown()


def test_human_texts_that_are_too_few_or_too_long_are_named(request_of: Request, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("\n".join([SENTENCES[4], " ".join(SENTENCES)]), encoding="utf-8")
    card = evaluate_model(request_of(validation=str(tmp_path / "few.txt"), training=None, judge=None))
    said = "\n".join(card.left_out)
    assert "there are 2 held-out texts, fewer than the 4 samples" in said
    assert "1 of 2 held-out texts from the bound" in said and card.figures["texts that the model scored"][HELD_OUT] == 1


def test_a_text_that_the_judge_cannot_read_leaves_the_other_figures(request_of: Request, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(" ".join(SENTENCES), encoding="utf-8")
    card = evaluate_model(request_of(training=str(tmp_path / "long.txt"), validation=None, samples=1))
    assert set(card.figures["judge, nats per token"]) == {SAMPLES}
    assert any("the judge on training: 1 of 1 texts are too long" in reason for reason in card.left_out)


@pytest.mark.parametrize(
    ("changes", "targets", "said"),
    [
        ({"samples": 0}, {}, "samples=0"),
        ({"judge": "nowhere"}, {}, "There is no judge in 'nowhere'"),
        ({"validation": "gone.txt"}, {}, "There is no file 'gone.txt'"),
        ({"training": "gone.jsonl.gz"}, {}, "There is no file 'gone.jsonl.gz'"),
        ({"sampler": "confidnce"}, {}, "Did you mean 'confidence'"),
        ({"corrector": "p3"}, {}, "p2"),
        ({"label": "topic"}, {}, "held.txt, line 1: this is no JSON"),
        ({"guidance_scale": 2.0}, {}, "needs prompts: give label"),
        ({}, {"plot": "picture.txt"}, "end it in .png"),
        ({}, {"out": Path(__file__)}, "is no folder to write to"),
    ],
)
def test_a_mistake_is_told_before_any_sampling(
    request_of: Request, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], targets: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(TransformerDenoiser, "at_open", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(GuidedError, match=said):
        evaluate_model(request_of(**changes), **targets)


def test_texts_are_spread_over_the_whole_list() -> None:
    assert sorted(spread(range(100), 4)) == [0, 25, 50, 75]
    assert sorted(spread(range(10), 7)) == [0, 1, 2, 4, 5, 7, 8]
    assert sorted(spread(range(3), 9)) == [0, 1, 2]
    assert spread(range(200), 100)[:10] != sorted(spread(range(200), 100))[:10]


def test_a_model_with_a_schema_is_measured_both_ways(tmp_path: Path) -> None:
    lines = [{"text": f"The {name} is cheap .", "record": {"name": name}} for name in ("Mill", "Vaults", "Eagle")]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "pairs"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = small_recipe(data, out, record="record", tokenizer="bpe", vocab_size=330, canvas=48)
    train(recipe, progress=False)
    names = {"enum": [line["record"]["name"] for line in lines]}  # type: ignore[index]
    (out / "schema.json").write_text(json.dumps({
        "type": "object", "properties": {"name": names}, "required": ["name"], "additionalProperties": False,
    }))  # fmt: skip
    with pytest.raises(InvalidRequest, match="give --validation"):
        evaluate_model(CardRequest(model=str(out)))
    card = evaluate_model(CardRequest(model=str(out), samples=3, steps=4, validation=str(data)))
    scores = {name: values[SAMPLES] for name, values in card.figures.items() if name.startswith("records from text")}
    assert scores["records from text, valid"] == 1.0
    # One slot each, always written: right, precise and exact are one figure.
    right = scores["records from text, exact"]
    assert right in (0, 1 / 3, 2 / 3, 1)
    assert scores["records from text, slot accuracy"] == scores["records from text, precision"] == right
    mentioned = card.figures["values of the record in its text, share"]
    assert mentioned[HELD_OUT] == 1.0 and 0 <= mentioned[SAMPLES] <= 1
    assert card.figures["texts that the model scored"][HELD_OUT] == 6


def test_a_model_of_labels_writes_from_the_labels_of_held_out_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "labelled.jsonl", tmp_path / "labels"
    lines = [{"text": text, "kind": f"kind{i % 2}"} for i, text in enumerate(SENTENCES[:5])]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    train(small_recipe(data, out, label="kind", tokenizer="bpe", vocab_size=330, canvas=64), progress=False)
    asked, call = [], GuidedPipeline.__call__

    def recorded(self: GuidedPipeline, prompts: Any, *arguments: Any, **options: Any) -> Any:
        asked.append((prompts, options["guidance_scale"], options["corrector"]))
        return call(self, prompts, *arguments, **options)

    monkeypatch.setattr(GuidedPipeline, "__call__", recorded)
    whole = CardRequest(
        model=str(out), samples=5, steps=3, validation=str(data), label="kind", guidance_scale=2.0, corrector="p2"
    )
    card = evaluate_model(whole)
    assert [(sorted(prompts), *rest) for prompts, *rest in asked] == [(["kind0\n"] * 3 + ["kind1\n"] * 2, 2.0, "p2")]
    labels = [prompt.strip() for prompt in asked[0][0]]
    assert all(sample.startswith(f"[{label}] ") for sample, label in zip(card.samples, labels, strict=True))
    assert card.figures["texts that the model scored"][HELD_OUT] == 5
    tokenizer, pairs = AutoTokenizer.from_pretrained(out), read_labelled(str(data), "kind")
    examples = encode_pairs(spread(pairs, 5), tokenizer, 64)
    model = GuidedPipeline.from_pretrained(out).denoiser.model  # type: ignore[attr-defined]
    bound = evaluate_masked(model, examples, tokenizer.pad_token_id, passes=4)["bound"]
    assert card.figures["bound, nats per token"][HELD_OUT] == pytest.approx(bound, abs=1e-4)
    with pytest.raises(InvalidRequest, match="with --validation"):
        evaluate_model(replace(whole, validation=None))
    with pytest.raises(InvalidRequest, match="a label 'topic'"):
        evaluate_model(replace(whole, label="topic"))
