"""Swapped values: the text says what the record says, others stay, and a model reads a value instead of guessing it."""

import json
from pathlib import Path

import pytest

from guided_dlm.errors import InvalidRequest
from guided_dlm.training.pairs import read_pairs
from guided_dlm.training.recipe import TrainingRecipe
from guided_dlm.training.swap import Line, swap_values

LINES: list[Line] = [
    ("Mill is an English pub .", {"name": "Mill", "food": "English", "area": "riverside"}),
    ("The Vaults is a French pub .", {"name": "The Vaults", "food": "French"}),
    ("A pub that serves Thai food .", {"name": "Mill", "food": "Thai"}),
]


def test_text_and_record_change_together_and_the_article_follows() -> None:
    seen = set()
    for seed in range(40):
        for (text, record), (before, old) in zip(swap_values(LINES, ["food"], seed), LINES, strict=True):
            assert record["food"] in text and record == old | {"food": record["food"]}
            assert text == before or old["food"] not in text
            seen.add(text)
    assert {"Mill is a French pub .", "Mill is a Thai pub .", "The Vaults is an English pub ."} <= seen


def test_a_value_that_the_text_does_not_say_stays() -> None:
    for seed in range(20):
        assert swap_values(LINES, ["name"], seed)[2] == LINES[2]


def test_a_value_is_a_whole_word_in_any_case_and_never_one_that_the_text_has() -> None:
    lines: list[Line] = [
        ("thai food at Thailand", {"food": "Thai"}),
        ("Thai , no Sushi", {"food": "Thai"}),
        ("x", {"food": "Sushi"}),
    ]
    for seed in range(10):
        (first, _), second, _ = swap_values(lines, ["food"], seed, share=1.0)
        assert first == "Sushi food at Thailand" and second == lines[1]


def test_what_another_value_has_in_it_stays() -> None:
    line = ("Indian food near Raja Indian Cuisine", {"food": "Indian", "near": "Raja Indian Cuisine"})
    lines: list[Line] = [line, ("x", {"food": "Thai", "near": "Mill"})]
    for seed in range(20):
        assert swap_values(lines, ["food"], seed, share=1.0)[0] == line
        for text, record in swap_values(lines, ["near", "food"], seed, share=1.0)[:1]:
            assert record["near"] in text and record["food"] in text


def test_the_same_seed_swaps_alike_and_no_slots_none() -> None:
    assert swap_values(LINES, ["name", "food"], 3) == swap_values(LINES, ["name", "food"], 3)
    assert swap_values(LINES, [], 3) == LINES
    assert swap_values(LINES, ["name", "food"], 3, share=0.0) == LINES


def test_more_readings_are_more_pairs_to_records_each_with_swaps_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "record": record}) for text, record in LINES * 20))
    once, thrice = (read_pairs(str(path), "record", ("food",), readings) for readings in (1, 3))
    assert thrice[: len(once)] == once and len(once) == 120 and len(thrice) == 240
    more = thrice[len(once) :]
    assert all(json.loads(written)["food"] in text for text, written in more)
    assert more[:60] != more[60:]


def test_a_slot_that_no_record_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'colour': 0 values are strings there"):
        swap_values(LINES, ["colour"])
    with pytest.raises(InvalidRequest, match="'area': 1 values"):
        swap_values(LINES, ["area"])
    with pytest.raises(InvalidRequest, match="share=7"):
        swap_values(LINES, ["food"], share=7.0)
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"text": "a", "record": {"size": 3}}')
    with pytest.raises(InvalidRequest, match="'size'"):
        read_pairs(str(path), "record", ("size",))
    whole = {"data": "", "out": "", "record": "record", "validation": "held out"}
    assert TrainingRecipe(**whole, swap=("food",), readings=2).readings == 2  # type: ignore[arg-type]
    for fields in (
        {"swap": ("food",), "record": None},
        {"readings": 2, "validation": None},
        {"readings": 2, "record": None},
        {"clean": 5, "validation": None},
        {"clean": 2, "record": None},
    ):
        with pytest.raises(InvalidRequest, match="not what is held out"):
            TrainingRecipe(**whole | fields)  # type: ignore[arg-type]
    for swap in ("food", [1]):
        with pytest.raises(InvalidRequest, match="list of slots"):
            TrainingRecipe(**whole | {"swap": swap})  # type: ignore[arg-type]
