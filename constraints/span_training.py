"""`python -m constraints.span_training`: count which tag sequences are constituents, from text that spaCy parses."""

from __future__ import annotations

import argparse

from constraints.annotation import annotated
from constraints.span_lexicon import SpanLexicon


def main() -> None:
    """Count, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="+", required=True, help='.jsonl.gz files of {"text"}')
    parser.add_argument("--parser", default="en_core_web_sm")
    parser.add_argument("--most", type=int, default=200, help="windows to keep of each label and width")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    sentences = (
        (line["tags"]["penn"], line["spans"]) for path in arguments.texts for line in annotated(path, arguments.parser)
    )
    SpanLexicon.count(sentences, arguments.most).write(arguments.out)


if __name__ == "__main__":
    main()
