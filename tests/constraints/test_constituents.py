"""Constituents read off dependencies, the trees they make, and counting those on which two readers agree."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from nltk.tree import Tree

from constraints.constituents import constituents, nested
from constraints.span_training import agreed, read_texts, read_trees
from guided_dlm.errors import InvalidRequest
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


def test_an_auxiliary_is_shared_by_a_verb_like_the_first_and_not_by_another() -> None:
    shared = [
        ("it", "PRP", "nsubjpass", 2), ("is", "VBZ", "auxpass", 2), ("located", "VBN", "ROOT", 2),
        ("and", "CC", "cc", 2), ("rated", "VBN", "conj", 2),
    ]  # fmt: skip
    verbal = {span for span in constituents(spacy_document(shared)) if span[2] == "VP"}
    assert verbal == {(1, 4, "VP"), (2, 4, "VP"), (2, 2, "VP"), (4, 4, "VP")}
    other = [*shared[:4], ("serves", "VBZ", "conj", 2)]
    verbal = {span for span in constituents(spacy_document(other)) if span[2] == "VP"}
    assert verbal == {(1, 4, "VP"), (1, 2, "VP"), (2, 2, "VP"), (4, 4, "VP")}


def test_a_verb_and_a_clause_joined_in_a_chain_end_the_phrase_where_the_clause_begins() -> None:
    document = spacy_document(
        [
            ("it", "PRP", "nsubj", 1), ("serves", "VBZ", "ROOT", 1), ("costs", "VBZ", "conj", 1),
            ("and", "CC", "cc", 2), ("it", "PRP", "nsubj", 5), ("is", "VBZ", "conj", 2), ("cheap", "JJ", "acomp", 5),
        ]
    )  # fmt: skip
    assert constituents(document) == {
        (0, 0, "NP"), (0, 2, "S"), (1, 2, "VP"), (1, 1, "VP"), (2, 2, "VP"), (4, 4, "NP"), (4, 6, "S"), (5, 6, "VP"),
        (6, 6, "ADJP"), (0, 6, "S"),
    }  # fmt: skip


def test_words_with_wh_stand_before_their_clause() -> None:
    where = [
        ("pub", "NN", "ROOT", 0),
        ("where", "WRB", "advmod", 3),
        ("you", "PRP", "nsubj", 3),
        ("eat", "VBP", "relcl", 0),
    ]
    found = constituents(spacy_document(where))
    assert {(1, 3, "SBAR"), (1, 1, "WHADVP"), (2, 3, "S"), (3, 3, "VP")} <= found and (1, 3, "S") not in found
    in_which = [
        ("pub", "NN", "ROOT", 0), ("in", "IN", "prep", 4), ("which", "WDT", "pobj", 1), ("you", "PRP", "nsubj", 4),
        ("eat", "VBP", "relcl", 0),
    ]  # fmt: skip
    assert {(1, 4, "SBAR"), (3, 4, "S")} <= constituents(spacy_document(in_which))


def test_clauses_without_a_subject() -> None:
    eat = [("place", "NN", "ROOT", 0), ("to", "TO", "aux", 2), ("eat", "VB", "relcl", 0)]
    assert {(1, 2, "S"), (1, 2, "VP"), (2, 2, "VP")} <= constituents(spacy_document(eat))
    called = [("pub", "NN", "ROOT", 0), ("called", "VBN", "acl", 0), ("Giraffe", "NNP", "oprd", 1)]
    assert {(1, 2, "VP"), (2, 2, "S"), (2, 2, "NP")} <= constituents(spacy_document(called))
    adverb = [("a", "DT", "det", 3), ("very", "RB", "advmod", 2), ("cheap", "JJ", "amod", 3), ("pub", "NN", "ROOT", 3)]
    assert {(1, 2, "ADJP"), (0, 3, "NP")} == constituents(spacy_document(adverb))


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


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"texts\.csv is no \.jsonl\.gz"):
        read_texts(str(tmp_path / "texts.csv"))
