"""Who judges constituents: a grammar counted from NLTK's sample of the Penn Treebank, over the tags of NLTK's tagger.

Sections of the Wall Street Journal, so other text than any guide of this project has seen. The sample may not be
redistributed, so the grammar is counted where it is installed, in a few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from nltk.corpus import treebank
from nltk.tree import Tree

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.tagging import NLTK_NAME, nltk_tagger
from guided_dlm.parsing import TreeGrammar, sentences

_BRACKETS = {"(": "-LRB-", ")": "-RRB-"}  # as the treebank writes them, for trees are written in brackets


@lru_cache(maxsize=1)
def judge_grammar() -> TreeGrammar:
    """Return the grammar of the treebank sample.

    Raises:
        InvalidRequest: the sample is not installed; the message says the command that installs it.
    """
    try:
        return TreeGrammar.count(treebank.parsed_sents())
    except LookupError as error:
        raise InvalidRequest(
            "Constituents are judged by a grammar of NLTK's treebank sample, which is not installed: "
            "python -m nltk.downloader treebank"
        ) from error


@lru_cache(maxsize=1 << 14)
def parse(tokens: tuple[str, ...]) -> Tree:
    """Return the tree of a text's tokens: that of its sentence, or TOP over those of its sentences.

    Raises:
        InvalidRequest: the treebank sample or the tagger's data are not installed, or there is no token.
    """
    tagger = nltk_tagger()
    if tagger is None:
        raise InvalidRequest(
            f"Constituents are judged over NLTK's tags, and its data are not installed: python -m nltk.downloader "
            f"{NLTK_NAME}"
        )
    if not tokens:
        raise InvalidRequest("There is no token to parse.")
    tagged = [(_BRACKETS.get(word, word), _BRACKETS.get(tag, tag)) for word, tag in tagger.tag(list(tokens))]
    trees = [judge_grammar().parse(sentence) for sentence in sentences(tagged)]
    return trees[0] if len(trees) == 1 else Tree("TOP", trees)


def cut_or_padded(tokens: Sequence[str], length: int) -> tuple[str, ...]:
    """Return so many tokens: the rest is left out, or "." fills what is missing (2205.14217's rule for trees)."""
    return (*tokens[:length], *["."] * (length - len(tokens)))
