"""`python -m constraints.span_training`: count which tag sequences are constituents, from text that spaCy parses."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator

from tqdm.auto import tqdm

from constraints.constituents import Span, constituents
from constraints.span_lexicon import SpanLexicon
from constraints.tag_sets import PENN
from constraints.taggers import spacy_parser


def parsed_texts(path: str, parser: str) -> Iterator[tuple[list[str], set[Span]]]:
    """Yield the Penn tags and the constituents of each line's "text"."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    for document in tqdm(spacy_parser(parser).pipe(texts, batch_size=256), total=len(texts), unit="text"):
        if not any(token.is_space for token in document):
            yield [PENN.names[token.tag_] for token in document], constituents(document)


def main() -> None:
    """Count, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="+", required=True, help='.jsonl.gz files of {"text"}')
    parser.add_argument("--parser", default="en_core_web_sm")
    parser.add_argument("--most", type=int, default=200, help="windows to keep of each label and width")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    sentences = (found for path in arguments.texts for found in parsed_texts(path, arguments.parser))
    SpanLexicon.count(sentences, arguments.most).write(arguments.out)


if __name__ == "__main__":
    main()
