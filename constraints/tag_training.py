"""`python -m constraints.tag_training`: count a tag lexicon from text that a spaCy pipeline tags, and treebanks."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator

from tqdm.auto import tqdm

from constraints.tag_lexicon import TagLexicon
from constraints.tag_sets import TAG_SETS, UNIVERSAL, TagSet, tag_set
from constraints.taggers import spacy_pipeline

Tagged = list[tuple[str, str]]


def tagged_texts(path: str, tagger: str, tags: TagSet) -> Iterator[Tagged]:
    """Yield (word, tag) pairs for each line's "text", as the pipeline splits and tags it."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    for document in tqdm(spacy_pipeline(tagger).pipe(texts, batch_size=256), total=len(texts), unit="text"):
        words = (token for token in document if not token.is_space)
        yield [(token.text, token.pos_ if tags is UNIVERSAL else tags.names[token.tag_]) for token in words]


def treebank(path: str, tags: TagSet) -> Iterator[Tagged]:
    """Yield (word, tag) pairs for each sentence of a CoNLL-U file; words whose tag the set lacks are left out."""
    column = 3 if tags is UNIVERSAL else 4
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for block in file.read().split("\n\n"):
            rows = [line.split("\t") for line in block.splitlines() if line[:1].isdigit()]
            yield [(row[1], tags.names[row[column]]) for row in rows if row[0].isdigit() and row[column] in tags.names]


def main() -> None:
    """Count, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="*", default=[], help='.jsonl.gz files of {"text"}, tagged by --tagger')
    parser.add_argument("--treebanks", nargs="*", default=[], help=".conllu.gz files with both kinds of tags")
    parser.add_argument("--tags", choices=list(TAG_SETS), default="universal")
    parser.add_argument("--tagger", default="en_core_web_sm")
    parser.add_argument("--min-count", type=int, default=3)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    tags = tag_set(arguments.tags)
    sentences = [s for path in arguments.texts for s in tagged_texts(path, arguments.tagger, tags)]
    sentences += [s for path in arguments.treebanks for s in treebank(path, tags)]
    TagLexicon.count(sentences, arguments.min_count, tags).write(arguments.out)


if __name__ == "__main__":
    main()
