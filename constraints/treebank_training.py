"""`python -m constraints.treebank_training`: a lexicon of Penn tags that a second reader and the treebank agree with.

The first reader is spaCy's tagger, whose counts are given. The second is an averaged perceptron that learned from other
text, so that it is unsure of other words: a word has a high probability of a tag where both say so. Each reader counts
alike for each word. And every "to" is TO, as in the Penn Treebank; spaCy and newer treebanks say IN of the preposition.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from constraints.span_training import read_texts
from constraints.tag_lexicon import TagLexicon
from constraints.tag_sets import PENN
from constraints.tag_training import Tagged, treebank
from constraints.taggers import spacy_pipeline


def second_tagger(sentences: list[Tagged]) -> Any:
    """Return NLTK's averaged perceptron, trained on tagged sentences; the same for the same ones."""
    from nltk.tag.perceptron import PerceptronTagger

    tagger = PerceptronTagger(load=False)
    state = random.getstate()
    random.seed(0)  # it shuffles its sentences
    try:
        tagger.train([sentence for sentence in sentences if sentence], nr_iter=5)
    finally:
        random.setstate(state)
    return tagger


def joined(first: TagLexicon, second: TagLexicon) -> TagLexicon:
    """Return the first lexicon's words with the counts of both, those of the second scaled to weigh as much."""
    counts = {}
    for word, tags in first.counts.items():
        both, total = dict(tags), sum(tags.values())
        for tag, share in second.probabilities(word).items():
            both[tag] = both.get(tag, 0) + round(share * total)
        if word.lower() == "to":
            both = {"TO": sum(both.values())}
        counts[word] = {tag: count for tag, count in both.items() if count}
    return TagLexicon(counts)


def read_others(paths: Iterable[str], tagger: str) -> list[Tagged]:
    """Return sentences with gold tags of .conllu.gz files, and texts of the others as spaCy tags them."""
    found: list[Tagged] = []
    for path in paths:
        if path.endswith(".conllu.gz"):
            found += treebank(path, PENN)
        else:
            documents = spacy_pipeline(tagger).pipe(read_texts(path), batch_size=256)
            words = ([token for token in document if not token.is_space] for document in documents)
            found += [[(token.text, PENN.names[token.tag_]) for token in sentence] for sentence in words]
    return found


def main() -> None:
    """Train, count, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lexicon", required=True, help="the first reader's counts of Penn tags")
    parser.add_argument("--texts", required=True, help='a .jsonl.gz file of {"text"}, for the second reader')
    parser.add_argument(
        "--others", nargs="+", required=True, help=".conllu.gz, .txt.gz and .jsonl.gz files that it learns from"
    )
    parser.add_argument("--tagger", default="en_core_web_sm")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    tagger = second_tagger(read_others(arguments.others, arguments.tagger))
    tokenizer = spacy_pipeline(arguments.tagger).tokenizer
    texts = tqdm(read_texts(arguments.texts), unit="text")
    read = (tagger.tag([token.text for token in tokenizer(text) if not token.is_space]) for text in texts)
    joined(TagLexicon.read(arguments.lexicon, PENN), TagLexicon.count(read, tags=PENN)).write(arguments.out)


if __name__ == "__main__":
    main()
