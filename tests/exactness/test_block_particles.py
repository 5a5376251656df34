"""Particles over blocks against enumeration: the law given the constraint is neared, and the normaliser is unbiased."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from block_problem import JOINT, LENGTH, VOCABULARY, BlockDenoiser
from oracles import accepted, canvases, counts, tv
from tiny import tiny_pipeline

from constraints import Length, PartOfSpeech, Regex, Reward, Words
from constraints.tag_lexicon import TagLexicon
from constraints.tag_pattern import letters, read_pattern
from constraints.tag_sets import UNIVERSAL
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import TokenAutomaton
from guided_dlm.errors import InvalidRequest
from guided_dlm.samplers import Snapshot

PATTERNS = ["(ab)*a?", ".*b", "a.{1,2}", ".*a.*a.*"]


def exact_law(pattern: str) -> tuple[torch.Tensor, float]:
    """The joint given the pattern, and how likely the pattern is."""
    weight_N = JOINT.flatten() * accepted(Regex(pattern).to_automaton().lift(VOCABULARY), LENGTH)
    return weight_N / weight_N.sum(), float(weight_N.sum() / JOINT.sum())


def drawn(pattern: str, particles: int, samples: int = 3_000, **options: Any) -> Any:
    return GuidedPipeline(BlockDenoiser())(
        constraint=Regex(pattern),
        num_samples=samples,
        batch_size=samples * particles,
        particles=particles,
        seed=0,
        **options,
    )


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("width", [1, 2])
def test_more_particles_near_the_law_given_the_constraint(pattern: str, width: int) -> None:
    law_N, _ = exact_law(pattern)
    options = {"block_length": width, "steps": width, "sampler": "random"}
    few, many = (tv(counts(drawn(pattern, k, 1_500, **options).tokens, 4), law_N) for k in (1, 64))
    assert many < 0.06  # 1,500 exact draws are .035 away
    assert many < few + 0.02


def test_one_particle_is_not_there() -> None:
    """The law of a run without particles is far off for this pattern, so that the test above can fail."""
    law_N, _ = exact_law(".*b")
    assert tv(counts(drawn(".*b", 1, block_length=1, steps=1).tokens, 4), law_N) > 0.1


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_normaliser_is_the_chance_of_the_constraint_on_average(pattern: str, width: int) -> None:
    _, chance = exact_law(pattern)
    out = drawn(pattern, 3, block_length=width, steps=width, sampler="random")
    estimate_N = out.log_weights.exp()
    assert out.satisfied.all()
    error = float(estimate_N.std()) / math.sqrt(len(estimate_N))
    assert float(estimate_N.mean()) == pytest.approx(chance, abs=4 * error + 1e-9)


SPACED = Vocabulary.from_tokens([b" a", b" b", b"", b""], eos_id=2, mask_id=3)
LEXICON = {"a": {"NOUN": 6, "VERB": 3, "ADJ": 1}, "b": {"NOUN": 2, "VERB": 5, "ADJ": 3}}


class SpacedDenoiser(BlockDenoiser):
    """The same joint over words."""

    vocabulary = SPACED


@pytest.mark.parametrize(("pattern", "width"), [("(NOUN VERB)+ ADJ?", 2), (". ADJ .*", 1), ("NOUN* VERB .*", 2)])
def test_words_with_several_readings_have_the_law_of_the_sum_over_them(
    pattern: str, width: int, tmp_path: Path
) -> None:
    TagLexicon(LEXICON).write(tmp_path / "tags.tsv")
    wish = PartOfSpeech(pattern, lexicon=str(tmp_path / "tags.tsv"), certainty=0.0)
    weights, form = [], TokenAutomaton.well_formed(SPACED)
    for row in canvases(4, LENGTH).tolist():
        words = SPACED.decode(row).split()
        choices = itertools.product(*(LEXICON[word].items() for word in words))
        matching = (
            c
            for c in choices
            if re.fullmatch(letters(read_pattern(pattern)), "".join(UNIVERSAL.letter(t) for t, _ in c))
        )
        weights.append(form.accepts(row) * sum(math.prod(count / 10 for _, count in choice) for choice in matching))
    weight_N = JOINT.flatten() / JOINT.sum() * torch.tensor(weights).double()
    out = GuidedPipeline(SpacedDenoiser())(
        constraint=wish, num_samples=1_500, batch_size=96_000, particles=32, block_length=width, steps=width,
        sampler="random", seed=0,
    )  # fmt: skip
    error = float(out.log_weights.exp().std()) / math.sqrt(1_500)
    assert float(out.log_weights.exp().mean()) == pytest.approx(float(weight_N.sum()), abs=4 * error)
    assert tv(counts(out.tokens, 4), weight_N / weight_N.sum()) < 0.08


@pytest.mark.parametrize("at", [2, 3, 4])
def test_ctrl_c_gives_back_what_was_begun_also_in_the_look_ahead(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, calls = tiny_pipeline(), []
    asked = type(pipeline.denoiser).__call__

    def call(self: Any, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        return asked(self, *args)

    monkeypatch.setattr(type(pipeline.denoiser), "__call__", call)
    options: Any = {"steps": 1, "block_length": 4, "particles": 2}  # two calls for each block
    if at == 2:
        with pytest.raises(KeyboardInterrupt):  # nothing is written yet
            pipeline(constraint=Words(include=["pub"]), **options)
        return
    with pytest.warns(UserWarning, match="Ctrl-C"):
        out = pipeline(constraint=Words(include=["pub"]), **options)
    assert out.satisfied.all() and out.stopped


def test_every_output_satisfies_and_a_group_is_its_own() -> None:
    wish = Length(words=(2, 5)) & Words(include=["pub"]) & PartOfSpeech("DET .*")
    options = {"steps": 3, "block_length": 4, "particles": 4}
    together = tiny_pipeline()(constraint=wish, num_samples=3, seed=[5, 6, 7], **options)
    alone = [tiny_pipeline()(constraint=wish, seed=[seed], **options) for seed in (5, 6, 7)]
    assert together.satisfied.all()
    assert together.texts == [one.texts[0] for one in alone]


def test_calls_are_all_counted_and_a_stop_gives_back_whole_texts() -> None:
    wish = Words(include=["pub"])
    out = tiny_pipeline()(constraint=wish, num_samples=2, steps=2, block_length=6, particles=3)
    assert out.denoiser_calls >= 6  # two blocks of two steps, and one look ahead for each
    seen = []

    def callback(snapshot: Snapshot) -> str | None:
        seen.append(snapshot)
        return "stop" if len(seen) == 2 else None

    out = tiny_pipeline()(constraint=wish, num_samples=2, steps=4, block_length=6, particles=3, callback=callback)
    assert out.satisfied.all() and len(out.texts) == 2 and out.log_weights.isnan().all()


def test_rewards_and_searches_are_refused() -> None:
    wish = Words(include=["pub"]) & Reward(len)
    for resampling in ("systematic", "search"):
        with pytest.raises(InvalidRequest, match="a reward reads whole texts"):
            tiny_pipeline()(constraint=wish, steps=2, block_length=6, particles=2, resampling=resampling)
