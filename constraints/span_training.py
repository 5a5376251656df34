"""`python -m constraints.span_training`: count which tag sequences are constituents, where two readers agree on them.

One reader is spaCy's parser. The other is a grammar over tags, counted from spaCy's trees of other text. It has never
seen the text that is counted: where tags alone do not tell how phrases attach, it often reads otherwise, and the
window is no sure one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from constraints.constituents import FRAGMENT, constituents, nested
from constraints.span_lexicon import SpanLexicon
from constraints.tag_sets import PENN
from constraints.taggers import spacy_parser
from guided_dlm.errors import InvalidRequest
from guided_dlm.parsing import Span, TreeGrammar, sentences, spans_of
from guided_dlm.parsing.grammar import Tagged

if TYPE_CHECKING:
    from nltk.tree import Tree

_LONGEST = 40  # words of a sentence; time grows with the cube
_UNREADABLE = re.compile(r"<unk>|@[-,.]@")  # of WikiText


def read_texts(path: str) -> list[str]:
    """Return each line's "text" of a .jsonl.gz file, "# text" of a .conllu.gz file, or sentence of a .txt.gz file.

    Raises:
        InvalidRequest: the file is of another kind.
    """
    if not path.endswith((".jsonl.gz", ".conllu.gz", ".txt.gz")):
        raise InvalidRequest(f"{path} is no .jsonl.gz, .conllu.gz or .txt.gz file.")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    if path.endswith(".jsonl.gz"):
        return [json.loads(line)["text"] for line in lines]
    if path.endswith(".conllu.gz"):
        return [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
    found = [text.strip() for line in lines for text in re.split(r"(?<= [.!?]) ", line)]
    return [text for text in found if text and not text.startswith("=") and not _UNREADABLE.search(text)]


def read_trees(document: Any) -> list[tuple[Tagged, Tree | None]]:
    """Return each sentence of a document that spaCy parsed, tagged, and its tree; None where constituents cross."""
    tagged = [(token.text, PENN.names[token.tag_]) for token in document]
    spans, found, begin = constituents(document), [], 0
    for sentence in sentences(tagged):
        end = begin + len(sentence)
        inside = [(first - begin, last - begin, label) for first, last, label in spans if begin <= first and last < end]
        found.append((sentence, nested(sentence, inside)))
        begin = end
    return found


def agreed(documents: Iterable[Any], grammar: TreeGrammar) -> Iterator[tuple[list[str], list[Span]]]:
    """Yield the tags of each document, and the (first, last, chain of labels) that spaCy and the grammar agree on."""

    @cache
    def second(tags: tuple[str, ...]) -> frozenset[Span]:
        return frozenset(spans_of(grammar.parse([("", tag) for tag in tags])) if len(tags) <= _LONGEST else ())

    for document in documents:
        every: list[str] = []
        spans: list[Span] = []
        for sentence, tree in read_trees(document):
            tags = tuple(tag for _, tag in sentence)
            both = second(tags).intersection(spans_of(tree)) if tree is not None else ()
            spans += [
                (first + len(every), last + len(every), label) for first, last, label in both if label != FRAGMENT
            ]
            every += tags
        yield every, spans


def main() -> None:
    """Count, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="+", required=True, help='.jsonl.gz files of {"text"}')
    parser.add_argument("--others", nargs="+", required=True, help="the grammar's text: .txt.gz, .conllu.gz, .jsonl.gz")
    parser.add_argument("--parser", default="en_core_web_sm")
    parser.add_argument("--most", type=int, default=200, help="windows to keep of each label and width")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    def parsed(paths: list[str]) -> Iterator[Any]:
        texts = [text for path in paths for text in read_texts(path)]
        documents = spacy_parser(arguments.parser).pipe(texts, batch_size=256)
        for document in tqdm(documents, total=len(texts), unit="text"):
            if not any(token.is_space for token in document):
                yield document

    read = (one for document in parsed(arguments.others) for one in read_trees(document))
    trees = [tree for sentence, tree in read if tree is not None and 1 < len(sentence) <= _LONGEST]
    SpanLexicon.count(agreed(parsed(arguments.texts), TreeGrammar.count(trees)), arguments.most).write(arguments.out)


if __name__ == "__main__":
    main()
