"""Words as a pull: a bias on tokens, a word classifier, tokens near words; what they reach, and that they pull."""

import math

import numpy as np
import pytest
import torch
from tiny import TOKENIZERS, tabular_pipeline, tiny_pipeline
from torch import Tensor

from constraints import Length, Sentiment, Topic, Words
from constraints.lexicon import plain_words, similar_tokens, token_weights
from constraints.topic import sentiment_model, topics
from constraints.word_classifier import WordClassifier
from constraints.word_model import WordModel, fit_word_model
from constraints.word_training import cross_validate, without_doubles
from guided_dlm import CompileContext, Constraint, Guide, GuidedPipeline, Step, Vocabulary
from guided_dlm.constraint import Diagnostics
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Posterior
from guided_dlm.testing import check_constraint

SPACED = Vocabulary.from_tokens([b" good", b" Good", b"good", b" bad", b" the", b" pizza", b""], eos_id=6)
PLAIN = Vocabulary.from_tokens([b"good", b"bad", b"b", b""], eos_id=3)
PETS = ["the dog barks", "a dog and a cat", "the cat sleeps"]
CARS = ["the car stops", "a car and a bus", "the bus waits"]
BY_EXAMPLE = Topic(examples=PETS, background=CARS, strength=2.0, method="relaxed")
WORDED = Vocabulary.from_tokens([b" dog", b" cat", b" car", b" the", b" good", b" bad", b"", b""], eos_id=6, mask_id=7)


def step_of(tokens_BL: Tensor, diagnostics: Diagnostics | None = None) -> Step:
    return Step(index=0, total=1, time=1.0, tokens_BL=tokens_BL, diagnostics=diagnostics)


def pull(wish: Constraint, vocabulary: Vocabulary, embedding_VD: Tensor | None = None) -> list[float]:
    guide = wish.compile(CompileContext(vocabulary=vocabulary, length=4, embedding_VD=embedding_VD))
    assert guide.bias is not None
    return [round(value, 4) for value in guide.bias(step_of(torch.zeros(1, 4, dtype=torch.int64))).tolist()]


def energy_of(guide: Guide, relaxed_BLV: Tensor) -> Tensor:
    assert guide.energy is not None
    return guide.energy(relaxed_BLV, step_of(relaxed_BLV.argmax(-1)))


def gradient_of(guide: Guide, relaxed_BLV: Tensor) -> Tensor:
    leaf_BLV = relaxed_BLV.detach().clone().requires_grad_()
    (found_BLV,) = torch.autograd.grad(energy_of(guide, leaf_BLV).sum(), leaf_BLV)
    return found_BLV


def random_law(rows: int, length: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, length, size, generator=generator, dtype=dtype).softmax(-1)


def test_words_of_one_token_are_pulled_whatever_their_case() -> None:
    assert pull(Topic(words=["Good", "pizza"], strength=2.0), SPACED) == [2, 2, 0, 0, 0, 2, 0]
    assert pull(Topic(words=["good"], strength=-1.0), PLAIN) == [-1, 0, 0, 0]
    notes = Topic(words=["good", "pizza", "excellent"]).notes(CompileContext(vocabulary=SPACED, length=4))
    assert notes == {"words": 3, "single_tokens": 2}


@pytest.mark.parametrize(
    "wish", [Sentiment(method="relaxed"), Sentiment("negative", strength=-0.5, method="relaxed"), BY_EXAMPLE], ids=repr
)
def test_the_gradient_is_that_of_finite_differences(wish: WordClassifier) -> None:
    guide = wish.compile(CompileContext(vocabulary=WORDED, length=3))
    relaxed_BLV = random_law(2, 3, len(WORDED))
    gradient_BLV = gradient_of(guide, relaxed_BLV)
    for index in np.ndindex(*relaxed_BLV.shape):
        nudge_BLV = torch.zeros_like(relaxed_BLV)
        nudge_BLV[index] = 1e-5
        change_B = energy_of(guide, relaxed_BLV + nudge_BLV) - energy_of(guide, relaxed_BLV - nudge_BLV)
        assert float(gradient_BLV[index]) == pytest.approx(float(change_B.sum()) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("wish", [Sentiment(strength=2.0, method="relaxed"), BY_EXAMPLE], ids=repr)
def test_energy_reward_and_check_agree_on_a_text_of_whole_tokens(wish: WordClassifier) -> None:
    guide = wish.compile(CompileContext(vocabulary=WORDED, length=6))
    ids = torch.tensor([[3, 0, 4, 6, 6, 6]])
    relaxed_BLV = torch.nn.functional.one_hot(ids, len(WORDED)).double()
    text = WORDED.decode(ids[0].tolist())
    assert guide.reward is not None and guide.target is not None and not guide.needs_particles
    assert guide.target.energy is None and guide.target.reward is None
    expected = 2.0 * wish.check(text)
    assert float(guide.reward([text], ids)[0]) == pytest.approx(expected, abs=1e-12)
    assert float(energy_of(guide, relaxed_BLV)[0]) == pytest.approx(-expected, abs=1e-12)
    assert float(energy_of(guide, relaxed_BLV[:, :4])[0]) == float(energy_of(guide, relaxed_BLV)[0])  # no padding


@pytest.mark.parametrize("strength", [1.0, 6.0, -2.0])
def test_the_exact_method_is_the_law_of_texts_times_their_probability(strength: float) -> None:
    """Against enumeration of all canvases; the weights rounded as the docstring says."""
    wish = Sentiment("positive", strength=strength)
    guide = wish.compile(CompileContext(vocabulary=WORDED, length=3))
    assert guide.automaton is not None and guide.energy is None and guide.reward is None
    logits_BLV = 2 * torch.randn(1, 3, len(WORDED), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    words = [token.decode().strip() for token in WORDED.tokens[:6]]
    exact = {word: wish.word_model().weights.get(word, 0.0) for word in words}
    quantum = min(0.25, max(map(abs, exact.values())) / 8)
    weight = {word: quantum * round(w / quantum) for word, w in exact.items()}
    bend, law = wish.word_model().intercept, torch.zeros([len(WORDED)] * 3, dtype=torch.float64)
    log_p_LV = logits_BLV[0].log_softmax(-1)
    for length in range(4):
        for text in np.ndindex(*[6] * length):
            canvas = [*text, *[6] * (3 - length)]  # this vocabulary has no padding of its own
            logit = bend + sum(weight.get(WORDED.tokens[token].decode().strip(), 0.0) for token in text)
            log_p = sum(float(log_p_LV[i, token]) for i, token in enumerate(canvas))
            law[tuple(canvas)] = math.exp(log_p - strength * math.log1p(math.exp(-logit)))
    posterior = Posterior(logits_BLV, guide.automaton)
    assert float(posterior.log_z[0]) == pytest.approx(math.log(float(law.sum())), abs=1e-8)
    expected_LV = torch.stack([law.sum([i for i in range(3) if i != keep]) for keep in range(3)]) / law.sum()
    assert torch.allclose(posterior.marginals()[0], expected_LV, rtol=0, atol=1e-8)


def test_words_of_several_tokens_count_in_the_reward() -> None:
    guide = Sentiment(method="relaxed").compile(CompileContext(vocabulary=WORDED, length=4))
    assert guide.reward is not None
    found = guide.reward(["good", "good wonderful"], torch.zeros(2, 4, dtype=torch.int64))
    assert float(found[1]) > float(found[0])


def test_without_a_word_of_one_token_there_is_a_reward_alone() -> None:
    guide = Sentiment("positive").compile(CompileContext(vocabulary=Vocabulary((b"q", b""), eos_id=1), length=4))
    assert guide.automaton is None and guide.energy is None and guide.reward is not None and guide.needs_particles
    with pytest.raises(InvalidRequest, match=r"Give particles=8 or more"):
        tabular_pipeline()(constraint=BY_EXAMPLE)
    with pytest.raises(InvalidRequest, match=r"method='first_order'; choose 'exact' or 'relaxed'"):
        Sentiment(method="first_order")


def test_the_pull_fades_once_the_text_is_what_is_wished() -> None:
    guide = Sentiment(method="relaxed").compile(CompileContext(vocabulary=WORDED, length=20))
    strongest = []
    for token in (5, 3, 4):  # all bad, all "the", all good
        relaxed_BLV = torch.nn.functional.one_hot(torch.full((1, 20), token), len(WORDED)).double()
        strongest.append(float(gradient_of(guide, relaxed_BLV).abs().max()))
    assert strongest[0] > 1.5 * strongest[1] > 1e4 * strongest[2]


@pytest.mark.parametrize("wish", [Sentiment(method="relaxed"), BY_EXAMPLE], ids=repr)
def test_a_row_is_alone_bit_for_bit(wish: WordClassifier) -> None:
    guide = wish.compile(CompileContext(vocabulary=WORDED, length=9))
    relaxed_BLV = random_law(7, 9, len(WORDED), torch.float32)
    together = gradient_of(guide, relaxed_BLV)
    for row in range(7):
        assert torch.equal(gradient_of(guide, relaxed_BLV[row : row + 1])[0], together[row])


def test_the_probability_goes_into_the_trace() -> None:
    wish, relaxed_BLV = Sentiment("negative", strength=0.5, method="relaxed"), random_law(2, 3, len(WORDED))
    guide, diagnostics = wish.compile(CompileContext(vocabulary=WORDED, length=3)), Diagnostics()
    assert guide.energy is not None
    energy_B = guide.energy(relaxed_BLV, step_of(relaxed_BLV.argmax(-1), diagnostics))
    assert torch.allclose(diagnostics.scores[repr(wish)], (-2.0 * energy_B).exp())


def test_sentiment_turns_round() -> None:
    positive, negative = sentiment_model("positive"), sentiment_model("negative")
    assert positive.weights["great"] > 0.5 > -0.5 > positive.weights["bad"]
    assert math.exp(Sentiment("positive").check("a bad day")) < 0.5 < math.exp(Sentiment("negative").check("a bad day"))
    for text in ("", "a great day", "bad " * 500):
        assert positive.logit(text) == -negative.logit(text)
        assert math.exp(positive.log_p(text)) + math.exp(negative.log_p(text)) == pytest.approx(1.0)
        assert math.isfinite(positive.log_p(text))


def test_the_shipped_model_is_small_and_holds_plain_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    model, path = sentiment_model(), tmp_path_factory.mktemp("model") / "again.tsv"
    assert all(plain_words(word) == [word] for word in model.weights)
    model.write(path)
    assert path.stat().st_size < 200_000
    again = WordModel.read(path)
    assert (again.intercept, again.weights) == (model.intercept, model.weights)


def test_the_fit_is_where_the_penalised_loss_has_no_slope() -> None:
    texts, labels = [*PETS, *CARS[:2]], [1, 1, 1, 0, 0]
    model = fit_word_model(texts, labels, penalty=0.5)
    miss = [label - 1 / (1 + math.exp(-model.logit(text))) for text, label in zip(texts, labels, strict=True)]
    share = {1: 3 / 5, 0: 2 / 5}
    pull_N = [error / (2 * share[label]) for error, label in zip(miss, labels, strict=True)]
    assert sum(pull_N) == pytest.approx(0.0, abs=1e-3)
    for word, weight in model.weights.items():
        slope = sum(g * plain_words(text).count(word) for g, text in zip(pull_N, texts, strict=True))
        assert slope == pytest.approx(0.5 * weight, abs=1e-3)


def test_doubles_are_dropped_and_quality_is_of_texts_not_trained_on() -> None:
    assert without_doubles([(1, "It 's good ."), (0, "it's good"), (0, "bad")]) == [(1, "It 's good ."), (0, "bad")]
    pairs = [(i % 2, f"{'good' if i % 2 else 'bad'} w{i}") for i in range(40)]
    found = cross_validate(pairs, min_count=2, penalty=0.5, folds=4)
    assert found.accuracy == 1.0 and found.log_loss < 0.3 and found.slope > 1
    guess = cross_validate([(i // 2 % 2, "good" if i % 2 else "bad") for i in range(40)], 1, 0.5, folds=5)
    assert guess.log_loss == pytest.approx(math.log(2), abs=0.05)


def test_examples_give_their_own_words() -> None:
    weights = Topic(examples=["The pizza is good.", "A good pizza!", "pizza and wine"]).word_weights()
    assert weights == {"pizza": 1.0, "good": 2 / 3, "wine": 1 / 3}


def test_a_background_makes_a_classifier_of_examples() -> None:
    weights = BY_EXAMPLE.word_weights()
    assert weights["dog"] > 0 > weights["car"] and abs(weights["the"]) < 0.1 * weights["dog"]
    assert BY_EXAMPLE.check("my dog") > math.log(0.5) > BY_EXAMPLE.check("my car")
    with pytest.raises(InvalidRequest, match=r"is no classifier; give examples= and background="):
        Topic(words=["dog"]).word_model()


@pytest.mark.parametrize("wish", [Sentiment("negative"), Topic(name="food"), BY_EXAMPLE], ids=repr)
def test_the_contract_is_kept(wish: Constraint) -> None:
    if wish != Topic(name="food"):  # whose words no vocabulary of bytes has as single tokens
        check_constraint(wish)
    assert Constraint.from_config(wish.to_config()) == wish


def test_every_shipped_list_is_lower_case_sorted_and_without_doubles() -> None:
    assert len(topics()) >= 12
    for name in topics():
        words = list(Topic(name=name).word_weights())
        assert words == sorted(set(words))
        assert all(word == word.lower().strip() != "" for word in words)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, r"give one of name"),
        ({"name": "food", "words": ["a"]}, r"give one of name"),
        ({"name": "foot"}, r"there is no list for 'foot'; shipped are computers, food"),
        ({"examples": ["the of"]}, r"no word that is typical"),
        ({"examples": ["a dog"], "background": ["a dog"]}, r"no word tells the examples from the background"),
        ({"words": ["dog"], "background": ["a cat"]}, r"background= is what examples= are told apart from"),
        ({"examples": ["a dog"], "background": ["a cat"], "similar": 3}, r"with examples= leave them out"),
        ({"words": ["dog"], "similar": -1}, r"similar=-1 must be a whole number"),
        ({"words": ["dog"], "similar": True}, r"similar=True must be a whole number"),
        ({"name": "food", "strength": float("nan")}, r"strength=nan"),
    ],
)
def test_a_topic_that_says_nothing_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Topic(**fields)  # type: ignore[arg-type]


def test_a_vocabulary_that_has_none_of_the_words_is_said() -> None:
    with pytest.raises(InvalidRequest, match=r"single token of this vocabulary.*Words\(prefer"):
        Topic(words=["aardvark"]).compile(CompileContext(vocabulary=SPACED, length=4))
    assert len(TOKENIZERS) > 0


def test_wordnet_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(InvalidRequest, match=r"nltk\.downloader wordnet"):
        Topic(words=["dog"], expand=True).word_weights()


NEAR = Vocabulary(
    (b" dog", b" Dog", b" puppy", b" cat", b" car", b" bus", b" the", b" x", b" do9", b"gy", b" hound", b"", b""),
    eos_id=11,
    mask_id=12,
    never_written=frozenset([10]),
)
# Every token that does not count lies exactly where the dog is: the nearest there could be.
PLACE = [[4.0, 0], [4, 0], [3, 1], [1, 2], [-4, 1], [-3, -4], [4, 0], [4, 0], [4, 0], [4, 0], [4, 0], [4, 0], [4, 0]]
NEAR_VD = torch.tensor(PLACE, dtype=torch.float64)


def test_similar_tokens_are_the_nearest_whole_words_by_cosine() -> None:
    counted = [0, 1, 2, 3, 4, 5]
    table = NEAR_VD.numpy() - NEAR_VD.numpy()[counted].mean(0)
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = {i: float(unit[i] @ unit[0]) for i in (2, 3, 4, 5)}
    assert cosine[2] > cosine[3] > 0 > max(cosine[4], cosine[5])
    for count, expected in ((1, [2]), (2, [2, 3]), (9, [2, 3])):
        wish = Topic(words=["dog"], similar=count, strength=2.0)
        found = pull(wish, NEAR, NEAR_VD.float())
        assert found[:2] == [2.0, 2.0]
        assert {i: x for i, x in enumerate(found) if i > 1 and x} == {
            i: pytest.approx(2.0 * cosine[i], abs=1e-3) for i in expected
        }
        context = CompileContext(vocabulary=NEAR, length=4, embedding_VD=NEAR_VD)
        names = {2: "puppy", 3: "cat"}
        assert wish.notes(context)["similar"] == {names[i]: round(cosine[i], 3) for i in expected}


def test_similar_tokens_of_several_words_lie_between_them_and_no_weight_is_above_one() -> None:
    vocabulary = Vocabulary.from_tokens([b" up", b" right", b" diagonal", b" left", b" down", b""], eos_id=5)
    table = torch.tensor([[0.0, 1], [1, 0], [1, 1], [-1, 0], [-1, -1], [0, 0]])
    near = similar_tokens(token_weights({"up": 1.0, "right": 1.0}, vocabulary), vocabulary, table, 3)
    assert near == {2: 1.0}


def test_similar_needs_a_model_with_embeddings() -> None:
    wish = Topic(words=["pub"], similar=2)
    with pytest.raises(InvalidRequest, match=r"similar= compares the embeddings.*this model has none"):
        Topic(words=["a"], similar=2).compile(tabular_pipeline().context(3))
    assert Constraint.from_config(wish.to_config()) == wish
    pipe = tiny_pipeline()
    out = pipe(constraint=wish, steps=4, num_samples=2)
    added = out.report[0][repr(wish)]["notes"]["similar"]
    assert 0 < len(added) <= 2 and all(0 < weight <= 1 for weight in added.values())


def test_contexts_with_and_without_an_embedding_are_equal_and_its_rows_are_the_tokens() -> None:
    bare, full = (CompileContext(vocabulary=NEAR, length=4, embedding_VD=table) for table in (None, NEAR_VD))
    assert bare == full and hash(bare) == hash(full) and repr(bare) == repr(full)
    with pytest.raises(InvalidRequest, match=r"one row for each of the 13 tokens"):
        CompileContext(vocabulary=NEAR, length=4, embedding_VD=NEAR_VD[1:])
    pipe = tiny_pipeline()
    table = pipe.context(5).embedding_VD
    assert table is not None and table.shape[0] == len(pipe.denoiser.vocabulary) and not table.requires_grad


@pytest.mark.parametrize("wish", [Sentiment("positive", strength=0.0), 0.0 * Sentiment("negative")], ids=repr)
def test_strength_zero_changes_nothing(wish: Constraint) -> None:
    pipe = tiny_pipeline()
    free, guided = (pipe(constraint=one, num_samples=5, steps=6, seed=2) for one in (None, wish))
    assert torch.equal(free.tokens, guided.tokens)


@pytest.fixture(scope="module")
def shipped() -> GuidedPipeline:
    return GuidedPipeline.from_pretrained("restaurant-words")


def test_the_pull_moves_texts_of_a_real_model_the_more_the_stronger(shipped: GuidedPipeline) -> None:
    def mean_log_p(strength: float) -> float:
        wish = Sentiment("negative", strength=strength)
        out = shipped(constraint=wish, num_samples=24, max_new_tokens=32, steps=8, seed=1)
        return sum(row[repr(wish)]["score"] for row in out.report) / len(out)

    assert mean_log_p(-8.0) < mean_log_p(0.0) - 0.1 < mean_log_p(16.0) - 0.4


def test_hard_wishes_hold_under_a_strong_pull_and_rows_do_not_depend_on_the_batch(shipped: GuidedPipeline) -> None:
    wish = Words(include=["riverside"]) & Length(words=(6, 9)) & Sentiment("negative", strength=30.0)
    ways = [shipped(constraint=wish, num_samples=6, steps=6, seed=3, batch_size=size) for size in (1, 6)]
    assert bool(ways[0].satisfied.all())
    assert ways[0].texts == ways[1].texts
    assert shipped(constraint=wish, num_samples=1, steps=6, particles=4).satisfied.all()


@pytest.mark.parametrize("blocks", [None, 8])
def test_the_exact_method_works_block_by_block_too(shipped: GuidedPipeline, blocks: int | None) -> None:
    def mean_log_p(strength: float) -> float:
        wish = Sentiment("negative", strength=strength)
        out = shipped(
            constraint=wish, num_samples=16, max_new_tokens=24, steps=4 if blocks else 12, block_length=blocks
        )
        return sum(wish.check(text) for text in out.texts) / len(out)

    assert mean_log_p(20.0) > mean_log_p(0.0) + 0.3


def test_small_weights_of_examples_are_not_rounded_away() -> None:
    """Long examples have small weights each; the largest is always eight steps."""
    many = [" ".join(f"{kind}{chr(97 + i)}" for i in range(20)) for kind in ("dog", "car")]
    vocabulary = Vocabulary.from_tokens(
        [*(b" " + word.encode() for text in many for word in text.split()), b""], eos_id=40
    )
    wish = Topic(examples=many[:1], background=many[1:], strength=1.0)
    assert max(map(abs, wish.word_model().weights.values())) < 0.125
    automaton = wish.compile(CompileContext(vocabulary=vocabulary, length=4)).automaton
    assert automaton is not None and automaton.log_weight is not None
    assert float(automaton.log_weight.max() - automaton.log_weight.min()) > 0.2
