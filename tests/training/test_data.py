"""Reading texts, the collator's tails, and the word-level tokenizer."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SENTENCES, small_recipe, word_tokenizer

from guided_dlm import Vocabulary
from guided_dlm.errors import InvalidRequest
from guided_dlm.training.data import CanvasCollator, encode_texts, read_texts
from guided_dlm.training.recipe import TrainingRecipe, make_model
from guided_dlm.training.tokenization import build_word_tokenizer

LINES = ["The Mill .", "", "  Caf\u00e9   Rouge\t. ", "\n"]
EXPECTED = ["The Mill .", "Caf\u00e9 Rouge ."]


@pytest.mark.parametrize("name", ["data.txt", "data.txt.gz", "data.jsonl", "data.jsonl.gz", "v1.2.jsonl.gz"])
def test_all_kinds_of_files_hold_the_same_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    jsonl = "".join(json.dumps({"text": line, "id": 3}) + "\n" for line in LINES) + "\n"
    data = (jsonl if "jsonl" in name else "\n".join(LINES)).encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_texts(str(path)) == EXPECTED


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json}", "no JSON"),
        ('{"text": "unfinished', "no JSON"),
        ('{"txt": "a"}', 'field "text"'),
        ('{"text": null}', 'field "text"'),
        ('{"text": 5}', 'field "text"'),
        ('"a"', "an object"),
        ("5", "an object"),
        ('["text"]', "an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(InvalidRequest, match=rf"data\.jsonl, line 3: .*{reason}"):
        read_texts(str(path))


@pytest.mark.parametrize("name", ["gone.txt", "gone.jsonl", "gone.jsonl.gz"])
def test_a_missing_file_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="There is no file"):
        read_texts(str(tmp_path / name))


def test_a_file_without_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(InvalidRequest, match="holds no text"):
        read_texts(str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(("name", "data"), [("bad.txt.gz", b"no gzip"), ("cut.txt.gz", gzip.compress(b"a" * 99)[:20]),
                                            ("latin.txt", "caf\u00e9".encode("latin-1"))])  # fmt: skip
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRequest, match=rf"{name} could not be read"):
        read_texts(str(tmp_path / name))


def test_a_name_that_is_no_dataset_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def missing(*_: object, **__: object) -> object:
        raise FileNotFoundError("no such dataset on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(InvalidRequest, match=r"'no-such-data' is neither a file nor a dataset.*FileNotFoundError"):
        read_texts("no-such-data")


def test_a_dataset_is_read_from_the_split_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: {"text": [f"{name} {split}"]})
    assert read_texts("some/data", split="validation") == ["some/data validation"]


def test_examples_end_with_the_end_and_fit_the_canvas() -> None:
    tokenizer = build_word_tokenizer(SENTENCES, min_count=1)
    examples = encode_texts(["The pub .", "The Mill is a pub ."], tokenizer, canvas=6)
    assert len(examples) == 1  # six tokens and an end do not fit six
    assert examples[0]["length"] == 4 == len(examples[0]["input_ids"])
    assert examples[0]["input_ids"][-1] == tokenizer.eos_token_id
    assert len(encode_texts(["The Mill is a pub ."], tokenizer, canvas=7)) == 1


def batches(collate: CanvasCollator, count: int = 300) -> list[dict[str, torch.Tensor]]:
    """Batches that differ in their last row."""
    examples = [{"input_ids": [5, 6, 1], "length": 3}, {"input_ids": [7, 1], "length": 2}]
    return [collate([*examples, {"input_ids": [10 + index, 1], "length": 2}]) for index in range(count)]


def test_tails_have_every_length_up_to_the_limit_and_the_whole_canvas_now_and_then() -> None:
    widths = [
        batch["input_ids"].shape[1]
        for batch in batches(CanvasCollator(pad_id=9, canvas=32, max_tail=5, full_share=0.1))
    ]
    assert set(widths) == {3, 4, 5, 6, 7, 8, 32}
    assert 10 <= widths.count(32) <= 60


def test_canvases_are_text_end_and_padding() -> None:
    for batch in batches(CanvasCollator(pad_id=9, canvas=8), 20):
        tokens = batch["input_ids"]
        assert tokens[:2, :3].tolist() == [[5, 6, 1], [7, 1, 9]]
        assert (tokens[:, 3:] == 9).all()
        assert tokens.shape[1] <= 8
        assert batch["length"].tolist() == [3, 2, 2]


def test_tails_come_from_the_seed_alone() -> None:
    runs = [[b["input_ids"].shape[1] for b in batches(CanvasCollator(9, 32, seed=seed), 30)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_an_autoregressive_run_has_no_tails() -> None:
    collate = CanvasCollator(9, 32, **TrainingRecipe(data="", out="", objective="autoregressive").tails())
    assert {batch["input_ids"].shape[1] for batch in batches(collate)} == {3}
    assert TrainingRecipe(data="", out="", full_share=0.5).tails() == {"full_share": 0.5}


def test_frequent_words_are_one_token_and_rare_ones_are_spelled() -> None:
    tokenizer = build_word_tokenizer(["pub pub pub", "Zebra pub."], min_count=3)
    assert tokenizer.tokenize("pub") == ["pub"]
    assert tokenizer.tokenize("Zebra") == ["Z", "##e", "##b", "##r", "##a"]
    assert tokenizer.tokenize("pub.") == ["pub", "##."]
    assert build_word_tokenizer(["pub pub pub", "Zebra pub."], min_count=1).tokenize("Zebra") == ["Zebra"]


@settings(max_examples=60)
@given(st.lists(st.text("abZ09.,'#<>\u00e9\u00a3", min_size=1, max_size=6), min_size=1, max_size=4))
def test_every_text_over_the_characters_can_be_written_and_read_back(words: list[str]) -> None:
    text = " ".join(words)
    vocabulary = Vocabulary.from_tokenizer(build_word_tokenizer(["\u00e9\u00a3 a", *SENTENCES], min_count=2))
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert not {vocabulary.eos_id, vocabulary.pad_id, vocabulary.mask_id} & set(vocabulary.encode(text))


def test_a_word_that_looks_like_a_continuation_is_spelled() -> None:
    vocabulary = Vocabulary.from_tokenizer(build_word_tokenizer(["##ing ##ing a"], min_count=1))
    assert b"ing" not in vocabulary.tokens
    assert vocabulary.decode(vocabulary.encode("a ##ing")) == "a ##ing"


def test_the_vocabulary_is_that_of_the_corpus_in_a_fixed_order() -> None:
    one, other = (build_word_tokenizer(texts, min_count=1).get_vocab() for texts in (SENTENCES, SENTENCES[::-1]))
    assert one == other
    assert [one[name] for name in ("<unk>", "<eos>", "<pad>", "<mask>")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("objective", "full_share", "reads_tail"),
    [
        ("masked", 0.1, False),
        ("masked", 0.5, False),
        ("masked", 0.9, True),
        ("masked", 1.0, True),
        ("uniform", 0.1, True),
        ("block", 0.1, True),
    ],
)
def test_a_masked_model_of_short_canvases_needs_no_long_padding(
    tmp_path: Path, objective: str, full_share: float, reads_tail: bool
) -> None:
    recipe = small_recipe(tmp_path, tmp_path, objective=objective, full_share=full_share)
    assert make_model(recipe, word_tokenizer(), []).config.reads_tail is reads_tail
