"""Constituents read off dependencies, the trees they make, and counting those on which two readers agree."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from nltk.tree import Tree

from constraints.constituents import constituents, nested
from constraints.span_training import agreed, read_texts, read_trees
from guided_dlm.parsing import TreeGrammar, spans_of


def spacy_document(rows: list[tuple[str, str, str, int]]) -> Any:
    """A parsed document: word, tag, dependency and head of each token."""
    import spacy
    from spacy.tokens import Doc

    names, tags, dependencies, heads = map(list, zip(*rows, strict=True))
    return Doc(spacy.blank("en").vocab, words=names, tags=tags, deps=dependencies, heads=heads)


def test_constituents_are_read_off_dependencies() -> None:
    document = spacy_document(
        [
            ("the", "DT", "det", 1), ("pub", "NN", "nsubj", 5), ("in", "IN", "prep", 1), ("town", "NN", "pobj", 2),
            ("is", "VBZ", "auxpass", 5), ("located", "VBN", "ROOT", 5), ("near", "IN", "prep", 5),
            ("food", "NN", "pobj", 6), (".", ".", "punct", 5),
        ]
    )  # fmt: skip
    assert constituents(document) == {
        (0, 3, "NP"), (0, 1, "NP"), (2, 3, "PP"), (3, 3, "NP"), (4, 7, "VP"), (5, 7, "VP"), (6, 7, "PP"), (7, 7, "NP"),
        (0, 8, "S"),
    }  # fmt: skip


def test_a_relative_clause_is_a_sentence_after_its_pronoun() -> None:
    document = spacy_document(
        [
            ("pubs", "NNS", "ROOT", 0), ("that", "WDT", "nsubj", 2), ("serve", "VBP", "relcl", 0),
            ("food", "NN", "dobj", 2),
        ]
    )  # fmt: skip
    assert constituents(document) == {
        (0, 3, "NP"), (0, 0, "NP"), (1, 3, "SBAR"), (1, 1, "WHNP"), (2, 3, "S"), (2, 3, "VP"), (3, 3, "NP"),
    }  # fmt: skip


def test_verbs_that_share_a_subject_are_one_phrase_and_clauses_are_not() -> None:
    verbs = [
        ("it", "PRP", "nsubj", 1), ("serves", "VBZ", "ROOT", 1), ("food", "NN", "dobj", 1), ("and", "CC", "cc", 1),
        ("costs", "VBZ", "conj", 1), ("less", "JJR", "dobj", 4),
    ]  # fmt: skip
    assert {(1, 2, "VP"), (4, 5, "VP"), (1, 5, "VP"), (0, 5, "S")} <= constituents(spacy_document(verbs))
    assert (0, 2, "S") not in constituents(spacy_document(verbs))
    clauses = [*verbs[:4], ("it", "PRP", "nsubj", 5), ("costs", "VBZ", "conj", 1), ("less", "JJR", "dobj", 5)]
    found = constituents(spacy_document(clauses))
    assert {(0, 2, "S"), (4, 6, "S"), (0, 6, "S"), (1, 2, "VP"), (5, 6, "VP")} <= found and (1, 6, "VP") not in found


TAGGED = [("it", "PRP"), ("serves", "VBZ"), ("food", "NN")]


def test_spans_make_a_tree() -> None:
    tree = nested(TAGGED, [(2, 2, "NP"), (1, 2, "VP"), (0, 2, "S"), (0, 0, "NP")])
    assert tree == Tree.fromstring("(S (NP (PRP it)) (VP (VBZ serves) (NP (NN food))))")
    chain = nested(TAGGED, [(1, 2, "VP"), (1, 2, "S"), (1, 2, "SBAR")])
    assert chain == Tree.fromstring("(FRAG (PRP it) (SBAR (S (VP (VBZ serves) (NN food)))))")
    assert nested(TAGGED, [(0, 1, "NP"), (1, 2, "VP")]) is None
    assert nested(TAGGED[:1], []) == Tree.fromstring("(FRAG (PRP it))")


def test_what_both_readers_see_is_counted() -> None:
    """A second reader that has only seen one object takes the phrase after it for a part of the verb phrase."""
    document = spacy_document(
        [
            ("it", "PRP", "nsubj", 1), ("has", "VBZ", "ROOT", 1), ("food", "NN", "dobj", 1), ("at", "IN", "prep", 2),
            ("night", "NN", "pobj", 3), (".", ".", "punct", 1), ("it", "PRP", "nsubj", 7), ("has", "VBZ", "ROOT", 7),
            ("food", "NN", "dobj", 7), (".", ".", "punct", 7), ("food", "NN", "ROOT", 10), (".", ".", "punct", 10),
        ]
    )  # fmt: skip
    grammar = TreeGrammar.count(
        map(
            Tree.fromstring,
            [
                "(S (NP (PRP a)) (VP (VBZ b) (NP (NN c)) (PP (IN d) (NP (NN e)))) (. f))",
                "(S (NP (PRP a)) (VP (VBZ b) (NP (NN c))) (. f))",
                "(FRAG (NP (NN a)) (. b))",
            ],
        )
    )
    first, second, third = (tree for _, tree in read_trees(document))
    assert third == Tree.fromstring("(FRAG (NP (NN food)) (. .))")
    assert first is not None and second is not None and (2, 4, "NP") in spans_of(first)
    ((tags, spans),) = agreed([document], grammar)
    assert tags == ["PRP", "VBZ", "NN", "IN", "NN", ".", "PRP", "VBZ", "NN", ".", "NN", "."]
    assert sorted(spans) == [
        (0, 0, "NP"), (0, 5, "S"), (1, 4, "VP"), (2, 2, "NP"), (3, 4, "PP"), (4, 4, "NP"), (6, 6, "NP"), (6, 9, "S"),
        (7, 8, "VP"), (8, 8, "NP"), (10, 10, "NP"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "lines", "texts"),
    [
        ("a.jsonl.gz", [json.dumps({"text": "A pub ."})], ["A pub ."]),
        ("a.conllu.gz", ["# sent_id = 1", "# text = A pub.", "1\tA"], ["A pub."]),
        ("a.txt.gz", ["= Pubs =", "", "A pub . It has <unk> . It is cheap ."], ["A pub .", "It is cheap ."]),
    ],
)
def test_texts_to_count_are_read(tmp_path: Path, name: str, lines: list[str], texts: list[str]) -> None:
    with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    assert read_texts(str(tmp_path / name)) == texts
