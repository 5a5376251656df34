"""Copied runs against a brute-force search, duplicates of a hand-made list, and records scored by hand."""

import random

import pytest

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.copying import copying, duplicates, longest_runs
from guided_dlm.evaluation.records import family_friendly, mentioned_share, mentions, parse_record, score_records, vote


def longest_run_by_search(text: str, training: list[str]) -> int:
    words = text.split()
    spans = [(i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    padded = [f" {' '.join(other.split())} " for other in training]
    return max((j - i for i, j in spans if any(f" {' '.join(words[i:j])} " in other for other in padded)), default=0)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_run_is_the_one_that_a_search_of_all_spans_finds(seed: int) -> None:
    draw = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(draw.choice("abc") for _ in range(draw.randint(0, most)))

    training, texts = [text(12) for _ in range(6)], [text(14) for _ in range(15)]
    assert longest_runs(texts, training) == [longest_run_by_search(one, training) for one in texts]


def test_a_run_stays_inside_one_training_text_and_counts_whole_words_with_their_case() -> None:
    training = ["the mill is", "a pub", "Riverside"]
    assert longest_runs(["the mill is a pub", "mil is", "riverside", "", "none"], training) == [3, 1, 0, 0, 0]
    assert longest_runs(["a"], []) == [0]


def test_copying_takes_the_mean_and_the_longest_run_and_counts_whole_training_texts() -> None:
    found = copying(["a b c", "a  b", "x b c y", "z"], ["a b c", "a b", "q"])
    assert (found.mean_run, found.longest_run, found.verbatim) == ((3 + 2 + 2 + 0) / 4, 3, 2 / 4)


def test_duplicates_are_all_texts_that_have_an_equal() -> None:
    assert duplicates(["a", "b", "a", "c", "a", "b"]) == 5 / 6
    assert duplicates(["a", "b", "c"]) == 0.0
    for measure in (duplicates, lambda texts: copying(texts, ["a"])):
        with pytest.raises(InvalidRequest, match="no text"):
            measure([])


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "area": {"enum": ["riverside", "city centre"]}}}


def test_records_are_scored_slot_by_slot() -> None:
    gold = [{"name": "A", "area": "riverside"}, {"name": "B"}, {"name": "C", "area": "riverside"}, {"name": "D"}]
    texts = ['{"name":"A","area":"riverside"}', '{"name":"B","area":"sea"}', '{"name":"X"}', "no JSON"]
    scores = score_records(texts, gold, SCHEMA)
    assert (scores.valid, scores.exact) == (2 / 4, 1 / 4)  # "sea" is no area
    assert (scores.slot_accuracy, scores.precision) == (3 / 6, 3 / 5)
    assert scores.f1 == pytest.approx(2 * 3 / (6 + 5))
    assert parse_record("[1]") == parse_record("{") == {}
    with pytest.raises(InvalidRequest, match="2 texts and 1 records"):
        score_records(["{}", "{}"], gold[:1], SCHEMA)


def test_a_record_of_nothing_right_scores_nothing() -> None:
    scores = score_records(["{}"], [{"near": None}], SCHEMA)  # a slot that is missing is not one that is null
    assert (scores.slot_accuracy, scores.precision, scores.f1, scores.exact) == (0.0, 0.0, 0.0, 0.0)


def test_a_value_is_mentioned_as_whole_words_whatever_their_case() -> None:
    assert mentions("a Pub near the mill .", "eatType", "pub")
    assert not mentions("a public house", "eatType", "pub")
    assert mentions("less than \u00a3 20 .", "priceRange", "less than \u00a3 20")
    assert not mentions("15 out of 5", "customerrating", "5 out of 5")
    assert mentions("seats 3 .", "seats", 3)
    texts = ["The Mill , not family - friendly .", "Mill pub"]
    records = [{"name": "The Mill", "familyFriendly": "no", "area": "riverside"}, {"name": "Mill"}]
    assert mentioned_share(texts, records) == 3 / 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is family - friendly .", "yes"),
        ("It is not a very kid friendly pub .", "no"),
        ("It isn 't child - friendly", "no"),
        ("it isn't children friendly", "no"),
        ("Families are welcome . No pets .", "yes"),
        ("It is not cheap . Kids are welcome .", "yes"),
        ("a non family - friendly pub", "no"),
        ("not a place to take families", "no"),
        ("not the only place to take families", "yes"),  # the negation is six words away
        ("a familiar kidney pie", None),
        ("no", None),
    ],
)
def test_what_a_text_says_of_families(text: str, said: str | None) -> None:
    assert family_friendly(text) == said


def test_each_slot_is_decided_by_majority_and_absence_votes_too() -> None:
    drawn = [{"a": "x", "b": 1}, {"a": "y", "b": 1, "c": None}, {"a": "y"}, {"a": "x", "b": 2, "c": None}, {"c": None}]
    assert vote(drawn) == {"a": "x", "b": 1, "c": None}  # x and y, and 1 and absent, are equals: the first wins
    assert vote([{"a": 1}, {}, {}]) == {}
    assert vote([{"a": True}, {"a": 1}, {"a": 1}]) == {"a": 1}
    with pytest.raises(InvalidRequest, match="no record"):
        vote([])
