"""What a call returns: texts, report, posterior of a choice, trace, callback, seeds and batches."""

import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from references import places
from scipy import stats
from tiny import save_tiny_model, tabular_pipeline, tiny_model, tiny_pipeline, well_formed, word_tokenizer
from wishes import Prefer

from constraints import Choice, Length, Regex, Words
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.errors import GuidedError, InvalidRequest, UnknownName
from guided_dlm.models import shipped
from guided_dlm.report import Output
from guided_dlm.samplers import Snapshot

CHOICE = Choice(["a", "ab", "a b", ".", ".."])


@lru_cache(maxsize=1)
def pipeline() -> GuidedPipeline:
    return tiny_pipeline()


@lru_cache(maxsize=1)
def tabular() -> GuidedPipeline:
    return tabular_pipeline()


def test_fields_have_the_shapes_and_types_of_the_contract() -> None:
    out = pipeline()(["The", "Near the"], Length(words=2), num_samples=3, max_new_tokens=8, return_trace=True, steps=4)
    assert len(out) == len(out.texts) == len(out.report) == 6
    assert (out.tokens.shape, out.tokens.dtype) == ((6, 8), torch.int64)
    assert (out.satisfied.shape, out.satisfied.dtype) == ((6,), torch.bool)
    assert (out.truncated.shape, out.truncated.dtype) == ((6,), torch.bool)
    assert out.log_weights.tolist() == [0.0] * 6
    assert out.trace is not None


def test_without_constraint_nothing_is_reported_and_all_is_satisfied() -> None:
    out = pipeline()(num_samples=2, steps=3)
    assert out.report == [{}, {}]
    assert out.satisfied.tolist() == [True, True]
    assert out.trace is None


def test_the_report_says_what_holds_what_is_guaranteed_and_the_scores() -> None:
    soft = 2.0 * Prefer(word="Mill")
    either = Words(include=["pub"]) | Words(include=["cheap"])
    out = pipeline()(constraint=either & Length(words=2) & soft, num_samples=64, steps=2, temperature=2.0)
    seen = set()
    for text, report in zip(out.texts, out.report, strict=True):
        assert report[repr(either)] == {"satisfied": True, "guaranteed": True, "score": None}
        assert report["Length(words=2)"] == {"satisfied": True, "guaranteed": True, "score": None}
        assert report[repr(soft)] == {
            "satisfied": None,
            "guaranteed": False,
            "score": float(text.split().count("Mill")),
        }
        for word in ("pub", "cheap"):  # a leaf below a disjunction is checked, but not promised
            leaf = report[f"Words(include=['{word}'])"]
            assert leaf == {"satisfied": bool(places(word, text, False)), "guaranteed": False, "score": None}
            seen.add((word, leaf["satisfied"]))
    assert len(seen) == 4
    assert len(out.report[0]) == 6


def test_tokens_are_counted_without_the_tail() -> None:
    wish = Length(tokens=(2, 4))
    out = pipeline()(constraint=wish, num_samples=4, steps=4)
    vocabulary = pipeline().denoiser.vocabulary
    assert all(2 <= vocabulary.text_length(row) <= 4 for row in out.tokens.tolist())
    assert out.satisfied.all()
    assert all(report[repr(wish)]["satisfied"] for report in out.report)


def test_truncated_says_whether_the_text_reached_its_end() -> None:
    out = tabular()(num_samples=64, steps=3)
    full = [all(token < 5 for token in row) for row in out.tokens.tolist()]
    assert out.truncated.tolist() == full
    assert set(full) == {True, False}


def test_the_completion_excludes_the_prompt() -> None:
    out = pipeline()("The Mill", Choice(["is a pub"]), num_samples=2, steps=3)
    assert out.texts == ["is a pub"] * 2
    assert out.tokens.shape == (2, 10)


def enumerated_posterior(pipe: GuidedPipeline, length: int = 3) -> np.ndarray:
    """The law of the options under the product of the joint's marginals, over all canvases, by decoding each."""
    joint = (1.5 * torch.randn([8] * length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).exp()
    joint *= well_formed(length)
    joint /= joint.sum()
    factors = [joint.sum([d for d in range(length) if d != position]) for position in range(length)]
    mass = dict.fromkeys(CHOICE.options, 0.0)
    for row in (well_formed(length) > 0).nonzero().tolist():
        text = pipe.denoiser.vocabulary.decode(row)
        if text in mass:
            mass[text] += float(np.prod([factor[token] for factor, token in zip(factors, row, strict=True)]))
    law = np.array(list(mass.values()))
    return law / law.sum()


def test_the_posterior_of_a_choice_is_its_mass_summed_over_tokenisations() -> None:
    out = tabular()(constraint=CHOICE, steps=1)
    posterior = out.report[0][repr(CHOICE)]["posterior"]
    assert list(posterior) == list(CHOICE.options)
    np.testing.assert_allclose(list(posterior.values()), enumerated_posterior(tabular()), atol=1e-9)


@pytest.mark.parametrize("pipe", [tabular, pipeline], ids=["tabular", "transformer"])
def test_the_posterior_of_a_choice_is_its_frequency_in_one_step(pipe: object) -> None:
    model = pipe()  # type: ignore[operator]
    choice = CHOICE if pipe is tabular else Choice(["pub", "a", "is", "near", "The pub", "xy"])
    posterior = model(constraint=choice, steps=1).report[0][repr(choice)]["posterior"]
    assert sum(posterior.values()) == pytest.approx(1)
    rows = 2000
    out = model(constraint=choice, num_samples=rows, steps=1, batch_size=rows, seed=7)
    seen = np.array([out.texts.count(option) for option in choice.options])
    expected = rows * np.array(list(posterior.values()))
    kept = expected >= 5
    seen, expected = np.append(seen[kept], seen[~kept].sum()), np.append(expected[kept], expected[~kept].sum() + 1e-9)
    assert kept.sum() >= 2
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3 or seen[-1] <= 3


def test_the_posterior_of_a_choice_respects_what_stands_beside_it() -> None:
    wish = CHOICE & Length(words=1)
    posterior = tabular()(constraint=wish, steps=1).report[0][repr(CHOICE)]["posterior"]
    assert [option for option, share in posterior.items() if share > 0] == ["a", "ab"]
    plain = tabular()(constraint=CHOICE, steps=1).report[0][repr(CHOICE)]["posterior"]
    assert posterior["a"] / posterior["ab"] == pytest.approx(plain["a"] / plain["ab"])


def test_the_posterior_of_a_choice_is_per_row() -> None:
    out = pipeline()(["The", "Near the"], Choice(["pub", "Mill"]), steps=2, max_new_tokens=4)
    first, second = (row["Choice(['pub', 'Mill'])"]["posterior"] for row in out.report)
    assert first != second
    alone = pipeline()("Near the", Choice(["pub", "Mill"]), steps=2, max_new_tokens=4).report[0]
    assert alone["Choice(['pub', 'Mill'])"]["posterior"]["pub"] == pytest.approx(second["pub"], abs=1e-5)


def test_a_seed_is_all_the_randomness_there_is() -> None:
    asked = {"constraint": Length(words=(2, 5)), "num_samples": 6, "steps": 4}
    first, again, other = (pipeline()(**asked, seed=seed) for seed in (3, 3, 4))
    assert first.texts == again.texts
    assert first.texts != other.texts
    assert len(set(first.texts)) > 1  # samples of one call differ


def test_a_list_of_seeds_is_one_per_row_wherever_the_row_stands() -> None:
    wish = Length(words=(1, 2))
    seeds = [11, 5, 11, 9]
    out = tabular()(constraint=wish, num_samples=4, seed=seeds, steps=2)
    assert torch.equal(out.tokens[0], out.tokens[2])
    for row, seed in enumerate(seeds):
        assert torch.equal(tabular()(constraint=wish, seed=[seed], steps=2).tokens[0], out.tokens[row])


def test_negative_and_huge_seeds_are_seeds() -> None:
    texts = [tuple(pipeline()(num_samples=3, steps=2, seed=seed).texts) for seed in (-1, 2**63, 2**64 - 2, 10**30)]
    assert len(set(texts)) == 4


@pytest.mark.parametrize("wish", [None, Length(words=(1, 2)), Prefer(word="a", channel="energy")], ids=repr)
def test_the_result_does_not_depend_on_the_batch_size(wish: object) -> None:
    outs = [
        tabular()(constraint=wish, num_samples=7, batch_size=size, steps=3, return_trace=True) for size in (1, 2, 3, 64)
    ]
    for one, other in itertools.pairwise(outs):
        assert torch.equal(one.tokens, other.tokens)
        assert one.report == other.report
        assert one.trace is not None and other.trace is not None
        assert torch.equal(one.trace.steps[0].tokens_BL, other.trace.steps[0].tokens_BL)


def test_rows_with_different_soft_constraints_keep_their_own() -> None:
    wishes = [30.0 * Prefer(word=word) for word in ("pub", "cheap", "Mill")]
    out = pipeline()(["The"] * 3, wishes, max_new_tokens=6, steps=3, num_samples=2)
    for row, word in enumerate(["pub", "pub", "cheap", "cheap", "Mill", "Mill"]):
        assert word in out.texts[row].split()
    assert [set(report) for report in out.report] == [
        {repr(wish)} | {repr(wish.operand)} for wish in wishes for _ in range(2)
    ]


@pytest.mark.parametrize("channel", ["bias", "energy"])
def test_a_soft_constraint_pulls_and_its_window_is_kept(channel: str) -> None:
    wish = Prefer(word="pub", channel=channel, strength=9.0)
    steps = {"steps": 6, "num_samples": 16, "sampler": "random"}

    def mean(constraint: object) -> float:
        texts = pipeline()(constraint=constraint, **steps).texts  # type: ignore[arg-type]
        return float(np.mean([text.split().count("pub") for text in texts]))

    none, half, full = mean(None), mean(wish.during(0, 0.5)), mean(wish)
    assert none < half < full
    assert mean(0.0 * wish) == none
    assert mean(-3.0 * wish) <= none


@pytest.mark.parametrize("channel", ["bias", "energy"])
def test_a_schedule_of_nought_is_unguided_of_one_the_wish_and_a_rising_one_between(channel: str) -> None:
    wish = Prefer(word="pub", channel=channel, strength=9.0)
    steps = {"steps": 6, "num_samples": 16, "sampler": "random"}

    def drawn(constraint: object) -> tuple[Output, torch.Tensor]:
        seen: list[torch.Tensor] = []
        out = pipeline()(constraint=constraint, callback=lambda s: seen.append(s.logits_BLV), **steps)  # type: ignore[arg-type]
        return out, torch.stack(seen)

    for schedule, same in (((0, 0), None), (lambda p: 0, None), ((1, 1), wish), (lambda p: 1, wish)):
        (scheduled, scheduled_SBLV), (plain, plain_SBLV) = drawn(wish.scheduled(schedule)), drawn(same)
        assert torch.equal(scheduled.tokens, plain.tokens) and torch.equal(scheduled_SBLV, plain_SBLV)
    pub = [" ".join(drawn(c)[0].texts).count("pub") for c in (None, wish.scheduled((0, 1)), wish)]
    assert pub == sorted(set(pub))


def test_the_callback_sees_every_step_of_every_batch() -> None:
    seen: list[Snapshot] = []
    out = pipeline()(num_samples=5, batch_size=2, steps=4, callback=seen.append, sampler="random")
    assert [snapshot.at.index for snapshot in seen] == [0, 1, 2, 3] * 3
    assert [len(snapshot.after.tokens_BL) for snapshot in seen] == [2] * 8 + [1] * 4
    assert out.denoiser_calls == 12
    assert torch.equal(
        torch.cat([seen[3].after.tokens_BL, seen[7].after.tokens_BL, seen[11].after.tokens_BL]), out.tokens
    )


def test_the_trace_says_what_was_written_when_and_how_surely() -> None:
    wish = Length(words=(2, 4))
    out = pipeline()(constraint=wish, num_samples=5, batch_size=2, steps=5, return_trace=True)
    assert out.trace is not None
    mask = pipeline().denoiser.vocabulary.mask_id
    times = torch.zeros(5, 12, dtype=torch.long)
    before = torch.full((5, 12), mask)
    for step in out.trace.steps:
        assert torch.equal(step.written_BL, step.tokens_BL != before)
        assert bool(((step.marginal_BL > 0) == step.written_BL).all())
        assert bool((step.marginal_BL <= 1 + 1e-6).all())
        assert bool((step.log_z_B <= 1e-9).all())
        times += step.written_BL
        before = step.tokens_BL
    assert bool((times == 1).all())
    assert torch.equal(before, out.tokens)
    assert bool((out.trace.steps[0].log_z_B < -1e-6).all())
    assert out.trace.steps[-1].time == 0


def test_log_z_of_the_trace_is_zero_without_a_constraint() -> None:
    out = pipeline()(num_samples=2, steps=3, return_trace=True)
    assert out.trace is not None
    assert all(step.log_z_B.tolist() == [0.0, 0.0] for step in out.trace.steps)


def test_progress_shows_a_bar_and_is_off_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline()(steps=2)
    assert capsys.readouterr().err == ""
    pipeline()(steps=2, progress=True)
    assert "sampling" in capsys.readouterr().err


def test_an_empty_prompt_is_no_prompt() -> None:
    assert pipeline()("", steps=3).texts == pipeline()(None, steps=3).texts == pipeline()([None], steps=3).texts


def test_an_empty_text_is_a_text() -> None:
    out = pipeline()(constraint=Choice([""]), steps=3)
    assert (out.texts, out.truncated.tolist(), out.satisfied.tolist()) == ([""], [False], [True])


def test_a_model_without_end_of_text_fills_its_canvas() -> None:
    tokens = [*Vocabulary.from_tokenizer(word_tokenizer()).tokens]
    endless = Vocabulary(tuple(tokens), mask_id=word_tokenizer().mask_token_id)
    out = GuidedPipeline(TransformerDenoiser(tiny_model(), endless))(
        constraint=Regex("(?s).+"), steps=2, max_new_tokens=4
    )
    assert out.truncated.tolist() == [False]
    assert out.satisfied.all()


def test_an_unknown_model_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(UnknownName, match=r"no model 'no-such-model'.*Shipped models: ") as caught:
        GuidedPipeline.from_pretrained("no-such-model")
    for name in shipped():
        assert name in str(caught.value)


@pytest.mark.skipif(not shipped(), reason="no model is shipped yet")
def test_a_misspelled_model_suggests_the_shipped_one() -> None:
    name = shipped()[0]
    with pytest.raises(UnknownName, match=f"Did you mean '{name}'"):
        GuidedPipeline.from_pretrained(name[:-1])


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "", "a/b/c"])
def test_a_missing_folder_is_no_hub_id(name: str) -> None:
    with pytest.raises(GuidedError, match=r"no model"):
        GuidedPipeline.from_pretrained(name)


def test_a_path_is_a_folder_and_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = GuidedPipeline.from_pretrained(save_tiny_model(tmp_path / "model"))
    assert loaded(steps=2).satisfied.all()
    monkeypatch.chdir(tmp_path)
    for missing in (tmp_path / "gone", Path("some/where")):
        with pytest.raises(UnknownName, match="no model"):
            GuidedPipeline.from_pretrained(missing)


def test_a_hub_id_that_cannot_be_fetched_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("There is no network.\nSecond line.")

    monkeypatch.setattr(TransformerDenoiser, "from_pretrained", refuse)
    with pytest.raises(UnknownName) as caught:
        GuidedPipeline.from_pretrained("some/where")
    assert str(caught.value).startswith(
        "'some/where' is neither shipped nor a local folder, so it was taken as a Hub id"
    )
    assert "no network. Shipped models: " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": None}, "not None. Shipped models"),
        ({"name": 3}, "not 3. Shipped models"),
        ({"device": "bogus"}, r"device='bogus' cannot be used \(.*this machine has 'cpu'"),
        ({"device": "meta"}, r"device='meta' cannot be used"),
        ({"device": None}, r"device=None cannot be used"),
        ({"dtype": torch.int64}, r"dtype=torch\.int64 .*give one of float32"),
        ({"dtype": "int64"}, r"dtype='int64' .*give one of float32"),
    ],
)
def test_what_no_model_can_be_loaded_with_is_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    name = save_tiny_model(tmp_path)
    with pytest.raises(InvalidRequest, match=said) as caught:
        GuidedPipeline.from_pretrained(**{"name": name, **options})  # type: ignore[arg-type]
    assert "Did you mean" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="device='cuda' cannot be used"):
        GuidedPipeline.from_pretrained(save_tiny_model(tmp_path), device="cuda")


@pytest.mark.parametrize("broken", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_folder_is_not_a_wrong_name(tmp_path: Path, broken: str) -> None:
    file = save_tiny_model(tmp_path) / broken
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InvalidRequest, match="could not be loaded") as caught:
        GuidedPipeline.from_pretrained(tmp_path)
    assert "Shipped models" not in str(caught.value)


def test_a_pipeline_of_a_name_points_to_from_pretrained() -> None:
    with pytest.raises(InvalidRequest, match=r"takes a Denoiser, not 'restaurant-words'.*from_pretrained"):
        GuidedPipeline("restaurant-words")  # type: ignore[arg-type]


def test_white_space_of_a_prompt_does_not_matter_to_a_word_model() -> None:
    outs = [pipeline()(prompt, steps=3, max_new_tokens=6) for prompt in ("The Mill", "The Mill ", " The  Mill\n")]
    assert outs[0].texts == outs[1].texts == outs[2].texts
