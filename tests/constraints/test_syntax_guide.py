"""`SyntaxGuide`: what it calls likely, that it pulls there, that it composes, and what it refuses."""

import math
from typing import Any

import pytest
import torch

from constraints import Chunk, Length, PartOfSpeech, SyntaxGuide, SyntaxSpan, SyntaxTree, Words
from constraints.classifier import token_guide
from constraints.syntax_guide import _log_p, _of_tokens
from constraints.syntax_readers import load_reader
from guided_dlm import CompileContext, Constraint, GuidedPipeline, Step, Vocabulary
from guided_dlm.constraint import Diagnostics
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest, VocabularyMismatch
from guided_dlm.guidance import shift
from guided_dlm.parsing.reader import SyntaxReader, SyntaxReaderConfig

TEXT = "The Mill is a cheap pub near the river ."
TAGS = "DET PROPN AUX DET ADJ NOUN ADP DET NOUN PUNCT"
TREE = "(S (NP (DT *) (NNP *)) (VP (VBZ *) (NP (NP (DT *) (JJ *) (NN *)) (PP (IN *) (NP (DT *) (NN *))))) (. *))"


@pytest.fixture(scope="module")
def pipe() -> GuidedPipeline:
    return GuidedPipeline.from_pretrained("restaurant-words")


@pytest.mark.parametrize(
    ("wish", "other"),
    [
        (PartOfSpeech(TAGS), PartOfSpeech("DET NOUN VERB .*")),
        (SyntaxSpan(0, 1, "NP"), SyntaxSpan(1, 2, "NP")),
        (SyntaxSpan(6, 8, "PP"), SyntaxSpan(6, 8, "S")),
        (SyntaxTree(TREE), SyntaxTree("(S (NP (DT *)) (VP (VBZ *)) (. *))")),
        (Chunk("NP: {<DT><JJ><NN>}"), Chunk("NP: {<CD><NNS>}")),
    ],
)
def test_what_a_text_is_has_a_probability_near_1_and_what_it_is_not_a_low_one(
    wish: Constraint, other: Constraint
) -> None:
    assert SyntaxGuide(wish).check(TEXT) > math.log(0.5)  # type: ignore[arg-type]
    assert SyntaxGuide(other).check(TEXT) < math.log(0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [16, 40, 64])
def test_the_check_depends_little_on_the_canvas(pipe: GuidedPipeline, length: int) -> None:
    context = CompileContext(vocabulary=pipe.denoiser.vocabulary, length=length)
    ids = pipe.denoiser.vocabulary.encode(TEXT)
    eos_id, pad_id = pipe.denoiser.vocabulary.eos_id, pipe.denoiser.vocabulary.pad_id
    canvas_BL = torch.tensor([[*ids, eos_id, *[pad_id] * (length - 1 - len(ids))]])
    for pattern in (TAGS, "DET NOUN VERB .*"):
        wish = SyntaxGuide(PartOfSpeech(pattern), strength=2.0)
        reward = wish.compile(context).reward
        assert reward is not None
        assert float(reward([TEXT], canvas_BL)[0]) == pytest.approx(2 * wish.check(TEXT), rel=0.1, abs=0.15)
    assert SyntaxGuide(PartOfSpeech("DET NOUN VERB .*")).check(TEXT) < -5


@pytest.mark.parametrize("text", ["", "The", "The Mill is"])
def test_a_text_that_ends_before_a_span_does_not_have_it(text: str) -> None:
    assert SyntaxGuide(SyntaxSpan(3, 5, "NP")).check(text) < math.log(0.05)
    assert SyntaxGuide(SyntaxSpan(3, 5, "NP")).check(TEXT) > math.log(0.5)


def test_blocks_are_read_after_what_was_written_and_before_what_is_not() -> None:
    """A pattern and a span that no single block of eight can satisfy."""
    pipe = GuidedPipeline.from_pretrained("restaurant-block")
    for wish, strength, gain in ((PartOfSpeech(TAGS), 1.0, 50.0), (SyntaxSpan(9, 11, "PP"), 3.0, 3.0)):
        guide = SyntaxGuide(wish, strength=strength)
        free, pulled = (
            sum(map(guide.check, pipe(constraint=one, num_samples=8, steps=8, seed=1).texts)) / 8
            for one in (None, guide)
        )
        assert pulled > free + gain


@pytest.mark.parametrize(
    "wish", [PartOfSpeech("DET NOUN VERB .*"), SyntaxSpan(2, 5, "PP")], ids=["parts of speech", "span"]
)
@pytest.mark.parametrize("method", ["first_order", "relaxed"])
def test_it_pulls_texts_towards_the_wish_and_hard_constraints_hold(
    pipe: GuidedPipeline, wish: Any, method: str
) -> None:
    means = []
    for strength in (0.0, 4.0):
        guide = SyntaxGuide(wish, strength=strength, method=method)
        out = pipe(constraint=guide & Length(words=(8, 16)) & Words(include=("pub",)), num_samples=24, steps=12, seed=2)
        assert bool(out.satisfied.all())
        means.append(sum(max(guide.check(text), -20.0) for text in out.texts) / 24)
    assert means[1] > means[0] + 1.0


def test_at_the_canvas_as_it_stands_the_pull_is_the_gradient_in_the_relaxed_tokens(pipe: GuidedPipeline) -> None:
    vocabulary, wish = pipe.denoiser.vocabulary, SyntaxGuide(PartOfSpeech("DET NOUN .*"), strength=2.0)
    size, generator = len(vocabulary), torch.Generator().manual_seed(0)
    tokens_BL = torch.randint(size, (2, 6), generator=generator)
    logits_BLV = torch.randn(2, 6, size, generator=generator)
    step = Step(index=0, total=1, time=1.0, tokens_BL=tokens_BL, logits_BLV=logits_BLV, diagnostics=Diagnostics())
    reader, _ = load_reader("restaurant-syntax", "cpu")
    score = _of_tokens(wish._of_embeds(reader), reader.get_input_embeddings().weight)
    expected = shift(logits_BLV, token_guide(score, size, "first_order", 2.0, "by tokens"), step)
    found = shift(logits_BLV, wish.compile(CompileContext(vocabulary=vocabulary, length=6)), step)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float((found - logits_BLV).abs().max()) > 0.1
    assert step.diagnostics is not None
    torch.testing.assert_close(step.diagnostics.scores[repr(wish)], step.diagnostics.scores["by tokens"])


def test_padding_behind_a_text_is_left_unread_whatever_the_other_rows_have(pipe: GuidedPipeline) -> None:
    vocabulary, length = pipe.denoiser.vocabulary, 32
    eos_id, pad_id, mask_id = vocabulary.eos_id, vocabulary.pad_id, vocabulary.mask_id
    assert mask_id is not None
    texts = [vocabulary.encode(text) for text in (TEXT, f"{TEXT} It is a cheap pub near the river .")]
    known_BL = torch.tensor([[*ids, eos_id, *[pad_id] * (length - 1 - len(ids))] for ids in texts])
    known_BL[:, 3:6] = -1
    tokens_BL = known_BL.where(known_BL >= 0, torch.tensor(mask_id))
    guide = SyntaxGuide(PartOfSpeech(f"{TAGS} .*")).compile(CompileContext(vocabulary=vocabulary, length=length))

    def pull(rows: slice, **known: torch.Tensor) -> torch.Tensor:
        step = Step(index=0, total=1, time=0.5, tokens_BL=tokens_BL[rows], **known)
        return shift(torch.zeros(len(tokens_BL[rows]), length, len(vocabulary)), guide, step)

    both_BLV, alone_BLV = (pull(rows, known_BL=known_BL[rows]) for rows in (slice(0, 2), slice(0, 1)))
    torch.testing.assert_close(both_BLV[:1], alone_BLV, rtol=1e-4, atol=1e-4)
    assert not bool(both_BLV[0, len(texts[0]) + 2 :].any())  # nothing pulls at what was not read
    whole_BLV = pull(slice(0, 2))[:, 3:6]
    apart = float((both_BLV[:, 3:6] - whole_BLV).norm() / whole_BLV.norm())
    assert apart < 0.25 and float(whole_BLV.abs().max()) > 0.1


@pytest.mark.parametrize(
    "wish",
    [
        PartOfSpeech("LS | DT NN VBZ", tagset="penn"),
        PartOfSpeech("DET NOUN+ VERB ."),
        SyntaxSpan(2, 5, "PP"),
        SyntaxTree(TREE),
    ],
    ids=["a tag that the reader does not know", "pattern", "span", "tree"],
)
def test_texts_that_ended_too_early_for_a_wish_are_read_as_far_as_it_goes(pipe: GuidedPipeline, wish: Any) -> None:
    vocabulary, length = pipe.denoiser.vocabulary, 32
    assert vocabulary.eos_id is not None and vocabulary.pad_id is not None
    tokens_BL = torch.tensor([[vocabulary.eos_id, *[vocabulary.pad_id] * (length - 1)]])
    guide = SyntaxGuide(wish).compile(CompileContext(vocabulary=vocabulary, length=length))
    step = Step(index=0, total=1, time=0.5, tokens_BL=tokens_BL, known_BL=tokens_BL, diagnostics=Diagnostics())
    moved_BLV = shift(torch.zeros(1, length, len(vocabulary)), guide, step)
    assert bool(moved_BLV.isfinite().all()) and bool(moved_BLV.any())
    assert step.diagnostics is not None
    assert float(step.diagnostics.scores[repr(SyntaxGuide(wish))][0]) < 0.05


def test_beside_a_model_in_bfloat16_it_pulls_as_in_float32_and_rewards_are_the_same(pipe: GuidedPipeline) -> None:
    vocabulary, wish = pipe.denoiser.vocabulary, SyntaxGuide(PartOfSpeech("DET NOUN .*"))
    tokens_BL = torch.randint(len(vocabulary), (2, 8), generator=torch.Generator().manual_seed(0))
    step = Step(index=0, total=1, time=1.0, tokens_BL=tokens_BL)
    embedding_VD = torch.zeros(len(vocabulary), 4)
    exact, fast = (
        wish.compile(CompileContext(vocabulary=vocabulary, length=8, embedding_VD=embedding_VD.to(dtype)))
        for dtype in (torch.float32, torch.bfloat16)
    )
    exact_BLV, fast_BLV = (shift(torch.zeros(2, 8, len(vocabulary)), guide, step) for guide in (exact, fast))
    assert exact.reward is not None and fast.reward is not None
    texts = [vocabulary.decode(row) for row in tokens_BL.tolist()]
    torch.testing.assert_close(fast.reward(texts, tokens_BL), exact.reward(texts, tokens_BL))
    assert fast_BLV.dtype == torch.float32
    assert 0 < float((fast_BLV - exact_BLV).norm() / exact_BLV.norm()) < 0.1


def test_one_object_guides_every_family_of_the_same_words() -> None:
    guide = SyntaxGuide(PartOfSpeech("DET NOUN .*"), strength=6.0)
    for name in ("restaurant-uniform", "restaurant-continuous", "restaurant-block"):
        pipe = GuidedPipeline.from_pretrained(name)
        scores = []
        for wish in (None, guide):
            texts = pipe(constraint=wish, num_samples=12, steps=8, seed=1).texts
            scores.append(sum(max(guide.check(text), -20.0) for text in texts) / 12)
        assert scores[1] > scores[0], name


def test_it_is_scaled_timed_and_joined_as_other_soft_wishes(pipe: GuidedPipeline) -> None:
    guide = SyntaxGuide(SyntaxSpan(0, 1, "NP"))
    context = CompileContext(vocabulary=pipe.denoiser.vocabulary, length=12)
    tokens_BL = torch.full((1, 12), pipe.denoiser.vocabulary.mask_id)
    step = Step(index=0, total=2, time=1.0, tokens_BL=tokens_BL)
    biases = [wish.compile(context).bias for wish in (guide, 2.0 * guide, guide.during(0.5, 1.0))]
    once, twice, later = (bias(step) for bias in biases if bias is not None)
    torch.testing.assert_close(twice, 2 * once)
    assert float(later.abs().max()) == 0.0 < float(once.abs().max())
    with pytest.raises(TypeError, match="method='relaxed'"):
        pipe(constraint=guide | guide, steps=2)
    either = SyntaxGuide(SyntaxSpan(0, 1, "NP"), method="relaxed") | SyntaxGuide(
        PartOfSpeech("DET .*"), method="relaxed"
    )
    assert pipe(constraint=either, steps=2).texts


def test_finished_texts_can_be_judged_with_particles(pipe: GuidedPipeline) -> None:
    guide = SyntaxGuide(SyntaxSpan(0, 1, "NP"), method="reward", strength=4.0)
    out = pipe(constraint=guide, num_samples=8, steps=6, particles=4, seed=1)
    free = pipe(num_samples=8, steps=6, seed=1)
    assert sum(map(guide.check, out.texts)) > sum(map(guide.check, free.texts))


def test_a_text_that_fills_the_readers_canvas_is_read_and_a_longer_one_refused() -> None:
    guide = SyntaxGuide(PartOfSpeech("NOUN*"))
    assert math.isfinite(guide.check(" ".join(["pub"] * 64)))
    with pytest.raises(InvalidRequest, match="sees 64 tokens, and the text has 65"):
        guide.check(" ".join(["pub"] * 65))


def test_its_config_is_plain_and_holds_the_wishes_own() -> None:
    wish = SyntaxGuide(SyntaxSpan(0, 1, "NP"), strength=2.0, method="relaxed")
    config = wish.to_config()
    assert config["wish"] == {"constraint": "syntax_span", "start": 0, "end": 1, "label": "NP"}
    assert Constraint.from_config(config) == wish
    assert repr(wish) == "SyntaxGuide(SyntaxSpan(start=0, end=1, label='NP'), strength=2.0, method='relaxed')"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"wish": Length(words=3)}, "has no soft form"),
        ({"wish": {"constraint": "syntax_span", "start": 2, "end": 1, "label": "NP"}}, "ends at word 1"),
        ({"wish": SyntaxTree("(S (NP *) (VP (VBZ *)))")}, r"'\(NP \*\)' is open"),
        ({"wish": SyntaxSpan(0, 1, "NP"), "strength": float("nan")}, "strength=nan"),
        ({"wish": SyntaxSpan(0, 1, "NP"), "method": "exact"}, "choose one of relaxed"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        SyntaxGuide(**fields)


def test_what_the_reader_cannot_read_is_refused(pipe: GuidedPipeline) -> None:
    context = CompileContext(vocabulary=pipe.denoiser.vocabulary, length=64)
    for name in ("/nowhere", "restaurant-words", "", 3):
        with pytest.raises(InvalidRequest, match="is no syntax reader; restaurant-syntax comes along"):
            SyntaxGuide(SyntaxSpan(0, 1, "NP"), model=name)  # type: ignore[arg-type]
    with pytest.raises(AutomatonTooLarge, match="has 512 states"):
        SyntaxGuide(PartOfSpeech(".* NOUN .{8}")).compile(context)
    with pytest.raises(Infeasible, match="speaks of 65 words"):
        SyntaxGuide(SyntaxSpan(63, 64, "NP")).compile(context)
    with pytest.raises(Infeasible, match="speaks of 5 words"):
        SyntaxGuide(PartOfSpeech("DET{5} NOUN*")).compile(CompileContext(vocabulary=pipe.denoiser.vocabulary, length=4))
    other_reader = SyntaxReader(SyntaxReaderConfig(tag_sets={"penn": ["NN"]}, labels=["X"]))
    with pytest.raises(InvalidRequest, match=r"knows the labels X, and .* has none of them"):
        _log_p(SyntaxSpan(0, 1, "NP"), other_reader)
    with pytest.raises(InvalidRequest, match="knows the tag sets penn and not 'universal'"):
        _log_p(PartOfSpeech("NOUN"), other_reader)
    with pytest.raises(InvalidRequest, match="sees 64 tokens, and the canvas has 65"):
        SyntaxGuide(SyntaxSpan(0, 1, "NP")).compile(CompileContext(vocabulary=pipe.denoiser.vocabulary, length=65))
    other = CompileContext(vocabulary=Vocabulary.from_tokens([b"a", b"b", b""], eos_id=2), length=4)
    with pytest.raises(VocabularyMismatch, match=r"The syntax reader reads .*train-syntax-reader"):
        SyntaxGuide(SyntaxSpan(0, 1, "NP")).compile(other)


def test_constituents_that_the_reader_does_not_know_are_left_out_and_named(pipe: GuidedPipeline) -> None:
    tree = "({} (NP (NN *) (NN *)))"
    context = CompileContext(vocabulary=pipe.denoiser.vocabulary, length=8)
    known, unknown = (SyntaxGuide(SyntaxTree(tree.format(label))) for label in ("S", "FRAG"))
    assert unknown.notes(context)["labels_left_out"] == ["FRAG"] and "labels_left_out" not in known.notes(context)
    assert unknown.check("coffee shop") > known.check("coffee shop") > -20


def test_the_shipped_reader_knows_both_tag_sets() -> None:
    reader, _ = load_reader("restaurant-syntax", "cpu")
    assert set(reader.config.tag_sets) == {"universal", "penn"}
    assert {"NP", "VP", "PP", "S"} <= set(reader.config.labels)
