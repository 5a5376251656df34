"""Cleaned records: what a text says stays, what it does not say goes, and no reader sees the record it puts right."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_dlm.errors import InvalidRequest
from guided_dlm.training import clean
from guided_dlm.training.clean import SlotReader, clean_records
from guided_dlm.training.pairs import read_pairs
from guided_dlm.training.recipe import TrainingRecipe
from guided_dlm.training.swap import Line

NAMES = [f"{first} {second}" for first in ("Blue", "Old", "Green") for second in ("Mill", "Arms", "Spice", "Inn")]


@pytest.fixture(autouse=True)
def few_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is made in no time."""
    monkeypatch.setattr(clean, "BUCKETS", 2**14)


def lines(noise: float, seed: int = 0) -> list[Line]:
    """Texts that say name and rating, the rating in other words; some records have a price that no text says."""
    draw = random.Random(seed)
    made: list[Line] = []
    for _ in range(300):
        name, stars = draw.choice(NAMES), draw.choice(["low", "high"])
        record = {"name": name, "rating": stars, "family": draw.choice(["yes", "no"])}
        text = f"{name} is {'a poor' if stars == 'low' else 'an excellent'} pub"
        text += {"yes": " for children .", "no": " for adults ."}[record["family"]]
        if draw.random() < noise:
            record = {"name": name, "price": draw.choice(["cheap", "high"]), **record}
        made.append((text, record))
    return made


def said(text: str) -> dict[str, str]:
    return {
        "name": next(name for name in NAMES if name in text),
        "rating": "low" if "poor" in text else "high",
        "family": "yes" if "children" in text else "no",
    }


def test_values_that_texts_do_not_say_go_and_those_put_in_other_words_stay() -> None:
    noisy = lines(0.3)
    cleaned = clean_records(noisy, ["name"])
    assert [text for text, _ in cleaned] == [text for text, _ in noisy]
    assert sum(record != said(text) for text, record in noisy) > 60
    assert all(record == said(text) for text, record in cleaned)
    assert all(list(record) == ["name", "rating", "family"] for _, record in cleaned)


def test_a_value_that_the_text_says_word_for_word_stays_though_no_other_record_has_it() -> None:
    odd: Line = ("Zanzibar is a poor pub for adults .", {"name": "Zanzibar", "rating": "low", "family": "no"})
    assert clean_records([*lines(0.0), odd])[-1] == odd


def test_no_reader_is_trained_on_the_record_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[set[str]] = []
    read: list[list[str]] = []

    def fit(self: SlotReader, part: list[Line], *_: object) -> Iterator[float]:
        trained.append({text for text, _ in part})
        return iter(())

    def look(self: SlotReader, texts: list[str]) -> list[dict[str, str]]:
        read.append(texts)
        return [{} for _ in texts]

    monkeypatch.setattr(SlotReader, "fit", fit)
    monkeypatch.setattr(SlotReader, "read", look)
    given = lines(0.0)  # a text has one record, and a record one text
    clean_records(given, folds=4)
    assert sorted(text for texts in read for text in texts) == sorted(text for text, _ in given)
    for texts, others in zip(read, trained, strict=True):
        assert texts and others and not others & {*texts}
    assert len(read) == 4


def test_a_reader_learns_and_the_same_seed_cleans_alike() -> None:
    reader = SlotReader(lines(0.0))
    losses = list(reader.fit(lines(0.0), (), epochs=4, seed=0))
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.7 * losses[0]
    assert reader.read(["Blue Mill is an excellent pub for adults ."]) == [
        {"name": "Blue Mill", "rating": "high", "family": "no"}
    ]
    assert clean_records(lines(0.5), ["name"], seed=2) == clean_records(lines(0.5), ["name"], seed=2)


def test_values_that_are_no_strings_are_read_as_they_are() -> None:
    counts: list[Line] = [(f"it seats {word}", {"seats": n}) for word, n in (("two", 2), ("four", 4))] * 40
    counts += [("it seats none", {"seats": None})] * 40
    reader = SlotReader(counts)
    list(reader.fit(counts, (), epochs=5, seed=0))
    assert reader.read(["it seats two", "it seats none"]) == [{"seats": 2}, {"seats": None}]


def test_pairs_are_of_cleaned_records_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "record": record}) for text, record in lines(0.3)))
    pairs = read_pairs(str(path), "record", clean=3)
    assert len(pairs) == 600 and not any("price" in prompt + completion for prompt, completion in pairs)
    assert any("price" in prompt for prompt, _ in read_pairs(str(path), "record"))


def test_folds_that_cannot_be_are_refused() -> None:
    for folds in (1, 3):
        with pytest.raises(InvalidRequest, match="at most the 2 different"):
            clean_records([("a", {"x": 1}), ("b", {"x": 2}), ("c", {"x": 2})], folds=folds)
    for count in (1, -1):
        with pytest.raises(InvalidRequest, match="at least 2 folds"):
            TrainingRecipe(data="", out="", record="record", validation="held out", clean=count)
