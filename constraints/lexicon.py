"""Word weights on a vocabulary's tokens, and words from WordNet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from guided_dlm.errors import InvalidRequest
from guided_dlm.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


def plain_words(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return _WORD.findall(text.lower())


def token_weights(weights: Mapping[str, float], vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Return float64 `[V]`: the weight of the word that a token spells, 0 for all others.

    Where words begin with a space inside their token, tokens without one continue a word and count for nothing.
    """
    spaced = any(token.startswith(b" ") and len(token) > 1 for token in vocabulary.tokens)
    found = np.zeros(len(vocabulary))
    for index, token in enumerate(vocabulary.tokens):
        if spaced and not token.startswith(b" "):
            continue
        found[index] = weights.get(token.decode(errors="replace").strip().lower(), 0.0)
    return found


def expanded(words: Iterable[str]) -> list[str]:
    """Return the words with their synonyms and kinds of them, by WordNet, in order.

    Raises:
        InvalidRequest: NLTK's WordNet data is not installed.
    """
    from nltk.corpus import wordnet

    found: dict[str, None] = {}
    try:
        for word in words:
            found.setdefault(word.lower())
            for sense in wordnet.synsets(word.replace(" ", "_"))[:2]:
                for near in (sense, *sense.hyponyms()):
                    found |= dict.fromkeys(name.replace("_", " ").lower() for name in near.lemma_names())
    except LookupError as error:
        raise InvalidRequest(
            "expand=True reads WordNet through NLTK, and its data is not installed: run "
            "python -m nltk.downloader wordnet, or set NLTK_DATA to where it is."
        ) from error
    return list(found)
