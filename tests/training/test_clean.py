"""Cleaned records: what a text says stays, what it does not say goes, and no reader sees the record it puts right."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_dlm.errors import InvalidRequest
from guided_dlm.training import clean, recipe
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


def test_what_the_text_says_stays_whatever_else_would_be_likelier() -> None:
    odd: Line = ("Blue Mill is a low and poor and excellent pub for adults .", {"name": "Blue Mill", "rating": "low"})
    assert clean_records([*lines(0.0), odd] * 2)[-1][1] == odd[1] | {"family": "no"}
    seats = [(f"It seats {number} .", {"seats": number}) for number in (7, 12)] * 20
    assert clean_records(seats, folds=2) == seats  # no reader knows the number it reads


def test_what_no_reader_can_know_stays() -> None:
    kinds: list[Line] = [("fine", {"label": "pos"}), ("so so", {"label": "neutral"}), ("awful", {"label": "neg"})]
    assert clean_records(kinds * 30, folds=3) == kinds * 30  # each stands in one record only, in one fold
    lists: list[Line] = [(f"new , {i}", {"tags": ["new", "wet"], "at": {"zip": i}}) for i in range(60)]
    assert [record for _, record in clean_records(lists)] == [record for _, record in lists]
    rare: list[Line] = [("x", {"code": str(i)}) for i in range(9)]
    assert clean_records([*rare, ("y", {})], folds=2) == [*rare, ("y", {})]


def test_slots_keep_their_order() -> None:
    turned: list[Line] = [
        (text, {slot: record[slot] for slot in ("family", "name", "rating")}) for text, record in lines(0.0)
    ]
    odd: Line = ("Blue Mill is a poor pub for adults .", {"rating": "low", "family": "no"})
    cleaned = clean_records([*turned, odd])
    assert all(list(record) == ["family", "name", "rating"] for _, record in cleaned[:-1])
    assert list(cleaned[-1][1]) == ["rating", "family", "name"]


def test_a_slot_is_swapped_only_where_the_other_folds_have_two_values() -> None:
    towns: list[Line] = [(f"a pub in {town}", {"town": town}) for town in ("Rome", "Bonn")] * 10
    assert clean_records(towns, ["town"], folds=2) == towns


def test_too_many_values_are_refused_before_memory_is_taken() -> None:
    many: list[Line] = [(f"x {i % 600}", {"title": str(i % 600), "n": i}) for i in range(600 * 10)]
    with pytest.raises(InvalidRequest, match=r"'title' alone 600; records are cleaned of up to 500"):
        SlotReader(many)


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
    cleaned = TrainingRecipe(data=str(path), out="", validation=str(path), record="record", clean=3)
    assert recipe._read(cleaned, str(path), "train") == pairs
    assert recipe._read(cleaned, str(path), "validation") == read_pairs(str(path), "record")


def test_folds_that_cannot_be_are_refused() -> None:
    three: list[Line] = [("a", {"x": 1}), ("b", {"x": 2}), ("c", {"x": 2})]
    for folds, epochs in ((1, 3), (3, 3), (2, 0)):
        with pytest.raises(InvalidRequest, match="different records, 2; epochs"):
            clean_records(three, folds=folds, epochs=epochs)
    for count in (1, -1):
        with pytest.raises(InvalidRequest, match="at least 2 folds"):
            TrainingRecipe(data="", out="", record="record", validation="held out", clean=count)
