"""Word pulls: which tokens they reach, what they say of it, and that they pull."""

import pytest
import torch
from tiny import TOKENIZERS

from constraints import Repetition, Sentiment, Topic
from constraints.topic import sentiment_weights, topics
from guided_dlm import CompileContext, Constraint, GuidedPipeline, Step, Vocabulary
from guided_dlm.errors import InvalidRequest

SPACED = Vocabulary.from_tokens([b" good", b" Good", b"good", b" bad", b" the", b" pizza", b""], eos_id=6)
PLAIN = Vocabulary.from_tokens([b"good", b"bad", b"b", b""], eos_id=3)


def pull(wish: Constraint, vocabulary: Vocabulary) -> list[float]:
    guide = wish.compile(CompileContext(vocabulary=vocabulary, length=4))
    assert guide.bias is not None
    step = Step(index=0, total=1, time=1.0, tokens_BL=torch.zeros(1, 4, dtype=torch.int64))
    return [round(value, 4) for value in guide.bias(step).tolist()]


def test_words_of_one_token_are_pulled_whatever_their_case() -> None:
    assert pull(Topic(words=["Good", "pizza"], strength=2.0), SPACED) == [2, 2, 0, 0, 0, 2, 0]
    assert pull(Topic(words=["good"], strength=-1.0), PLAIN) == [-1, 0, 0, 0]
    notes = Topic(words=["good", "pizza", "excellent"]).notes(CompileContext(vocabulary=SPACED, length=4))
    assert notes == {"words": 3, "single_tokens": 2}


def test_sentiment_weighs_words_and_turns_round() -> None:
    weights = sentiment_weights()
    assert weights["great"] > 0.5 > -0.5 > weights["bad"]
    positive, negative = (pull(Sentiment(target), SPACED) for target in ("positive", "negative"))
    assert positive[0] > 0 > positive[3]
    assert positive == [-value for value in negative]


def test_examples_give_their_own_words() -> None:
    weights = Topic(examples=["The pizza is good.", "A good pizza!", "pizza and wine"]).word_weights()
    assert weights == {"pizza": 1.0, "good": 2 / 3, "wine": 1 / 3}


def test_every_shipped_list_is_lower_case_sorted_and_without_doubles() -> None:
    assert len(topics()) >= 12
    for name in topics():
        words = list(Topic(name=name).word_weights())
        assert words == sorted(set(words))
        assert all(word == word.lower().strip() != "" for word in words)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "give one of name"),
        ({"name": "food", "words": ["a"]}, "give one of name"),
        ({"name": "foot"}, "there is no list for 'foot'; shipped are computers, food"),
        ({"examples": ["the of"]}, "no word that is typical"),
        ({"name": "food", "strength": float("nan")}, "strength=nan"),
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


def test_the_pull_moves_texts_of_a_real_model() -> None:
    pipe = GuidedPipeline.from_pretrained("restaurant-words")
    texts = {
        target: pipe(constraint=Sentiment(target, strength=4.0), num_samples=24, steps=8, seed=1).texts
        for target in ("positive", "negative")
    }
    score = {t: sum(Sentiment("positive").check(text) for text in found) for t, found in texts.items()}
    assert score["positive"] > score["negative"] + 0.5


def count_by_hand(known: list[int], place: int, token: int, size: int) -> int:
    """How many written copies of the n-gram there are that this token would complete at either of its ends."""
    found = 0
    for step in (1, -1):
        if size == 1 and step == -1:
            continue
        before = [place - step * k for k in range(1, size)]
        if any(not 0 <= p < len(known) or known[p] < 0 for p in before):
            continue
        for other in range(len(known)):
            there = [other - step * k for k in range(1, size)]
            if other == place or known[other] != token or any(not 0 <= p < len(known) for p in there):
                continue
            found += all(known[p] == known[q] for p, q in zip(before, there, strict=True))
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repetition_counts_the_copies_that_a_token_would_complete(size: int) -> None:
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b""], eos_id=None, mask_id=2)
    generator = torch.Generator().manual_seed(size)
    known = torch.randint(-1, 2, (20, 9), generator=generator)
    guide = Repetition(max_ngram=size, strength=2.0).compile(CompileContext(vocabulary=vocabulary, length=9))
    assert guide.bias is not None
    step = Step(index=0, total=1, time=1.0, tokens_BL=known.masked_fill(known < 0, 2), known_BL=known)
    bias_BLV = guide.bias(step)
    for row in range(20):
        for place in range(9):
            for token in range(2):
                expected = -2.0 * count_by_hand(known[row].tolist(), place, token, size)
                assert float(bias_BLV[row, place, token]) == expected
    assert not bool(bias_BLV[..., 2].any())


def test_an_ngram_longer_than_the_canvas_repeats_nowhere() -> None:
    vocabulary = Vocabulary.from_tokens([b"a", b""], eos_id=None, mask_id=1)
    guide = Repetition(max_ngram=6).compile(CompileContext(vocabulary=vocabulary, length=3))
    assert guide.bias is not None
    known = torch.zeros(1, 3, dtype=torch.int64)
    assert not bool(guide.bias(Step(index=0, total=1, time=1.0, tokens_BL=known, known_BL=known)).any())


def test_repetition_scores_repeated_ngrams() -> None:
    assert Repetition(max_ngram=2).check("a b a b c") == -1.0
    assert Repetition(max_ngram=1).check("x", [1, 2, 1, 1]) == -2.0
    with pytest.raises(InvalidRequest, match="at least 1"):
        Repetition(max_ngram=0)
