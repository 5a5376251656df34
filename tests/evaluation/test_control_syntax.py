"""Spans and trees of the control benchmark, under a judge whose grammar and tagger are known."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nltk.tree import Tree
from tiny import byte_level_bpe

from guided_dlm import Vocabulary
from guided_dlm.constraint import CompileContext, Constraint
from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation import bracketing
from guided_dlm.evaluation.bracketing import cut_or_padded, parse, sentences
from guided_dlm.evaluation.control_aspects import TOLERANCE, MentionedSlot, Spans, TreeShape
from guided_dlm.evaluation.control_scores import read_text, span_scores, tree_scores
from guided_dlm.evaluation.control_tasks import E2E, find_tasks
from guided_dlm.parsing import TreeGrammar

TAGS = {"The": "DT", "Mill": "NN", "pub": "NN", "is": "VBZ", "cheap": "JJ", ".": ".", "(": "("}
TREES = [
    "(S (NP (DT The) (NN Mill)) (VP (VBZ is) (ADJP (JJ cheap))) (. .))",
    "(S (NP (DT The) (NN pub)) (VP (VBZ is) (NP (NN pub))))",
    "(NP (NN pub) (. .))",
]


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tagger and a grammar that know six words."""

    class Tagger:
        def tag(self, words: list[str]) -> list[tuple[str, str]]:
            return [(word, TAGS.get(word, "UH")) for word in words]

    grammar = TreeGrammar.count(map(Tree.fromstring, TREES))
    monkeypatch.setattr(bracketing, "nltk_tagger", Tagger)
    monkeypatch.setattr(bracketing, "judge_grammar", lambda: grammar)
    parse.cache_clear()
    yield
    parse.cache_clear()


def test_texts_are_parsed_sentence_by_sentence() -> None:
    two = [("a", "x"), (".", "."), ("b", "x")]
    assert list(sentences(two)) == [two[:2], two[2:]]
    one = parse(("The", "Mill", "is", "cheap", "."))
    assert one.label() == "S" and one == Tree.fromstring(TREES[0])
    both = parse(("The", "Mill", "is", "cheap", ".", "The", "Mill", "is", "pub"))
    assert both.label() == "TOP" and [child.label() for child in both] == ["S", "S"]
    with pytest.raises(InvalidRequest, match="no token"):
        parse(())
    assert "(-LRB- -LRB-)" in parse(("The", "(", "pub")).pformat()


def test_what_judges_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bracketing, "nltk_tagger", lambda: None)
    with pytest.raises(InvalidRequest, match=r"nltk.downloader averaged_perceptron_tagger_eng"):
        parse(("The",))
    monkeypatch.undo()

    class Missing:
        def parsed_sents(self) -> Any:
            raise LookupError("treebank")

    bracketing.judge_grammar.cache_clear()
    monkeypatch.setattr(bracketing, "treebank", Missing())
    with pytest.raises(InvalidRequest, match=r"nltk.downloader treebank"):
        bracketing.judge_grammar()


def test_a_span_counts_with_its_label_at_its_place() -> None:
    texts = [read_text(text) for text in ("The Mill is cheap .", "Mill The is cheap", "")]
    assert span_scores(texts, (0, 1, "NP")).published == [1, 0, 0]
    assert span_scores(texts, (3, 3, "ADJP")).published == [1, 0, 0]
    assert span_scores(texts, (0, 1, "VP")).published == [0, 0, 0]


def test_a_tree_is_scored_by_f1_of_the_text_cut_or_padded() -> None:
    assert cut_or_padded(("a", "b", "c"), 2) == ("a", "b") and cut_or_padded(("a",), 3) == ("a", ".", ".")
    texts = [read_text(text) for text in ("The Mill is cheap .", "The Mill is cheap . pub", "The pub is pub .", "")]
    scores = tree_scores(texts, TREES[0])
    assert scores.published[:2] == [1, 1]
    assert 0 < scores.published[2] < 1  # an NP where an ADJP should be
    assert scores.published[3] == 0
    assert scores.strict == [1, 0, 0, 0]


def test_tree_targets_are_drawn_from_text_beside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "e2e").mkdir()
    (tmp_path / "control").mkdir()
    records = [
        {"text": "The Mill is cheap .", "record": {"name": "The Mill", "price": "cheap", "area": "far"}},
        {"text": "The pub is pub", "record": {"name": "Nowhere"}},
        {"text": "pub .", "record": {}},
    ]
    with gzip.open(tmp_path / "e2e" / "valid.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))
    tree, both = find_tasks("e2e", ["tree", "semantic+tree"])
    found = tree.targets(tmp_path / "control")
    assert [target.human for target in found] == [("The Mill is cheap .",), ("The pub is pub",)]  # two words: too short
    assert found[0].values["tree"] == TREES[0]
    (mentioned,) = both.targets(tmp_path / "control")
    assert mentioned.values == {"semantic": "The Mill", "tree": TREES[0]}
    wish = both.constraint(mentioned)
    assert [leaf.to_config()["constraint"] for leaf in wish.leaves()] == ["words", "syntax_tree"]
    with gzip.open(tmp_path / "e2e" / "valid.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": "pub"}) + "\n")
    with pytest.raises(InvalidRequest, match="no line that can be a target"):
        tree.targets(tmp_path / "control")
    with gzip.open(tmp_path / "e2e" / "valid.jsonl.gz", "wt") as file:
        file.write("[]\n")
    with pytest.raises(InvalidRequest, match="cannot read"):
        tree.targets(tmp_path / "control")


def test_aspects_read_lines_and_ask_for_constraints() -> None:
    spans = Spans()
    value = spans.read({"words_": ["START", "a"], "spans": [[0, 1, "NP"]]})
    assert value == (0, 1, "NP") and spans.label(value) == "[0, 1, 'NP']"
    assert spans.config(value) == {
        "constraint": "syntax_span", "start": 0, "end": 1, "label": "NP", "strength": 3.0,
    }  # fmt: skip
    assert TreeShape(0.0).config("(S a)") == {
        "constraint": "syntax_tree", "tree": "(S a)", "certainty": 0.02, "strength": 2.0,
    }  # fmt: skip
    assert "tolerance" not in TreeShape(0.0).config("(S a)") and TreeShape(1e-4).config("(S a)")["tolerance"] == 1e-4
    assert not MentionedSlot().fits({"text": "A pub .", "record": {"price": "low"}})
    assert {aspect.judges for task in E2E for aspect in task.aspects} == {None, "tags", "trees"}


def test_tolerance_is_of_tags_alone_and_0_suits_word_pieces() -> None:
    wishes = {}
    for tolerance in (None, 0.0, 1e-3):
        tasks = find_tasks("e2e", ["semantic", "pos", "tree"], tolerance)
        values = ("The Mill", ("DET", "NOUN"), "(NP (DT *) (NN *))")
        wishes[tolerance] = [
            aspect.config(value) for task, value in zip(tasks, values, strict=True) for aspect in task.aspects
        ]
    assert [wish.get("tolerance") for wish in wishes[None]] == [None, TOLERANCE, TOLERANCE]
    assert [wish.get("tolerance") for wish in wishes[0.0]] == [None, None, None]
    assert [wish.get("tolerance") for wish in wishes[1e-3]] == [None, 1e-3, 1e-3]
    pieces = CompileContext(vocabulary=Vocabulary.from_tokenizer(byte_level_bpe()), length=40)
    for config in wishes[0.0]:
        assert Constraint.from_config(config).compile(pieces).automaton is not None
    for config in wishes[None][1:]:
        with pytest.raises(InvalidRequest, match="Leave it out"):
            Constraint.from_config(config).compile(pieces)
