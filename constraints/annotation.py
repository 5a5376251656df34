"""`python -m constraints.annotation`: tags and constituents of texts as spaCy reads them, a JSON line for each text.

With `--others` the Penn tags are those of a second reader, an averaged perceptron that learned from these files, and
every "to" is TO, as in the Penn Treebank.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from constraints.constituents import constituents
from constraints.span_training import read_texts
from constraints.tag_sets import PENN
from constraints.taggers import spacy_parser
from constraints.treebank_training import read_others, second_tagger


def annotated(path: str, parser: str, second: Any | None = None) -> Iterator[dict[str, Any]]:
    """Yield {"text", "words", "tags": {"universal", "penn"}, "spans": [first, last, label]} for each text of a file.

    Texts with a token of white space are left out. With `second`, a tagger of NLTK's, the Penn tags are its own.
    """
    texts = read_texts(path)
    for document in tqdm(spacy_parser(parser).pipe(texts, batch_size=256), total=len(texts), unit="text"):
        if any(token.is_space for token in document):
            continue
        words = [token.text for token in document]
        penn = [PENN.names[token.tag_] for token in document] if second is None else as_the_treebank(second.tag(words))
        tags = {"universal": [token.pos_ for token in document], "penn": penn}
        yield {"text": document.text, "words": words, "tags": tags, "spans": sorted(constituents(document))}


def as_the_treebank(tagged: Iterable[tuple[str, str]]) -> list[str]:
    """Return the tags with TO for every "to"; newer treebanks say IN of the preposition."""
    return ["TO" if word.lower() == "to" else tag for word, tag in tagged]


def main() -> None:
    """Read the texts, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="+", required=True, help='.jsonl.gz files of {"text"}')
    parser.add_argument(
        "--others", nargs="+", default=[], help="what a second reader learns from, if there is to be one"
    )
    parser.add_argument("--parser", default="en_core_web_sm")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl.gz file")
    arguments = parser.parse_args()
    second = second_tagger(read_others(arguments.others, arguments.parser)) if arguments.others else None
    with gzip.open(arguments.out, "wt", encoding="utf-8") as file:
        for path in arguments.texts:
            file.writelines(json.dumps(line) + "\n" for line in annotated(path, arguments.parser, second))


if __name__ == "__main__":
    main()
