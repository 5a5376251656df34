"""`python -m constraints.annotation`: tags and constituents of texts as spaCy reads them, a JSON line for each text."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from constraints.constituents import constituents
from constraints.tag_sets import PENN
from constraints.taggers import spacy_parser


def annotated(path: str, parser: str) -> Iterator[dict[str, Any]]:
    """Yield {"text", "words", "tags": {"universal", "penn"}, "spans": [first, last, label]} for each line's "text".

    Texts with a token of white space are left out.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    for document in tqdm(spacy_parser(parser).pipe(texts, batch_size=256), total=len(texts), unit="text"):
        if not any(token.is_space for token in document):
            tags = {
                "universal": [token.pos_ for token in document],
                "penn": [PENN.names[token.tag_] for token in document],
            }
            words = [token.text for token in document]
            yield {"text": document.text, "words": words, "tags": tags, "spans": sorted(constituents(document))}


def main() -> None:
    """Read the texts, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="+", required=True, help='.jsonl.gz files of {"text"}')
    parser.add_argument("--parser", default="en_core_web_sm")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl.gz file")
    arguments = parser.parse_args()
    with gzip.open(arguments.out, "wt", encoding="utf-8") as file:
        for path in arguments.texts:
            file.writelines(json.dumps(line) + "\n" for line in annotated(path, arguments.parser))


if __name__ == "__main__":
    main()
