"""Texts annotated for syntax readers."""

import gzip
import json
from pathlib import Path

import pytest
from spacy.tokens import Doc
from spacy.vocab import Vocab

from constraints import annotation
from constraints.treebank_training import second_tagger

WORDS = ["The", "kid", "runs", "to", "town", "."]


class Parser:
    """What spaCy's parser gives of these words, whatever the text."""

    def pipe(self, texts: list[str], batch_size: int) -> list[Doc]:
        tags = {"pos": ["DET", "NOUN", "VERB", "ADP", "NOUN", "PUNCT"], "tags": ["DT", "NN", "VBZ", "IN", "NN", "."]}
        tree = {"heads": [1, 2, 2, 2, 3, 2], "deps": ["det", "nsubj", "ROOT", "prep", "pobj", "punct"]}
        return [Doc(Vocab(), words=WORDS, **tags, **tree) for _ in texts]  # type: ignore[arg-type]


def test_a_second_reader_has_the_say_on_penn_tags_and_tags_to_as_the_treebank_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation, "spacy_parser", lambda name: Parser())
    path = tmp_path / "texts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"text": " ".join(WORDS)}) + "\n")
    other = ["DT", "NN", "NNS", "IN", "NN", "."]  # "runs" is a noun to this one
    second = second_tagger([list(zip(WORDS, other, strict=True))] * 10)
    (alone,), (both,) = annotation.annotated(str(path), "any"), annotation.annotated(str(path), "any", second)
    assert alone["tags"]["penn"] == ["DT", "NN", "VBZ", "IN", "NN", "."]
    assert both["tags"] == alone["tags"] | {"penn": ["DT", "NN", "NNS", "TO", "NN", "."]}
    assert both["spans"] == alone["spans"] and (0, 5, "S") in both["spans"]
