"""Word weights on a vocabulary's tokens, and more words: from WordNet, or near them in a model's embedding."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from guided_dlm.errors import InvalidRequest
from guided_dlm.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_ROWS = 8192
_TINY = 1e-12


def plain_words(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return _WORD.findall(text.lower())


def token_weights(weights: Mapping[str, float], vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Return float64 `[V]`: the weight of the word that a token spells, 0 for all others.

    Where words begin with a space inside their token, tokens without one continue a word and count for nothing.
    """
    found = np.zeros(len(vocabulary))
    for index, word in _whole_words(vocabulary):
        found[index] = weights.get(word, 0.0)
    return found


def _whole_words(vocabulary: Vocabulary) -> Iterator[tuple[int, str]]:
    """Yield each token that does not continue a word, and what it spells, lower-case."""
    spaced = any(token.startswith(b" ") and len(token) > 1 for token in vocabulary.tokens)
    for index, token in enumerate(vocabulary.tokens):
        if not spaced or token.startswith(b" "):
            yield index, token.decode(errors="replace").strip().lower()


def similar_tokens(
    weight_V: NDArray[np.float64],
    vocabulary: Vocabulary,
    embedding_VD: Tensor,
    count: int,
    leave_out: Collection[str] = (),
) -> dict[int, float]:
    """Return the `count` tokens nearest to those that have a weight, each with a weight of its own in (0, 1].

    Nearness is the cosine to the mean of the words' unit embeddings, all taken from the mean embedding, towards which
    rare tokens lean (1702.01417, sec. 2). The weight is that cosine relative to the largest there is, which for a
    single word is its own, 1. Only whole words of at least two letters count, only tokens that a text may hold, and
    none of `leave_out`. Fewer come back where no more point the same way.
    """
    given = np.flatnonzero(weight_V).tolist()
    others = [
        index
        for index, word in _whole_words(vocabulary)
        if not weight_V[index] and vocabulary.writable[index] and len(word) > 1 and word.isalpha()
        if word not in leave_out
    ]
    rows = torch.split(torch.tensor([*given, *others]), _ROWS)  # a large table is not copied whole to float32
    mean_D = torch.stack([embedding_VD[row].float().sum(0) for row in rows]).sum(0) / (len(given) + len(others))
    centre_D = F.normalize(embedding_VD[given].float() - mean_D, dim=-1).mean(0)
    cosine_K = torch.cat([F.normalize(embedding_VD[row].float() - mean_D, dim=-1) @ centre_D for row in rows])
    weight_K = (cosine_K / cosine_K.max().clamp_min(_TINY)).cpu().double()[len(given) :]
    order = weight_K.argsort(descending=True, stable=True)[:count].tolist()
    return {others[i]: float(weight_K[i]) for i in order if weight_K[i] > 0}


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
