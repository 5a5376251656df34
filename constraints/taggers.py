"""Taggers that read the context: spaCy pipelines, loaded once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from guided_dlm.errors import InvalidRequest


@lru_cache(maxsize=4)
def spacy_pipeline(name: str) -> Any:
    """Return a spaCy pipeline that tags, and does nothing else.

    Raises:
        InvalidRequest: it is not installed; the message says the command that installs it.
    """
    import spacy

    try:
        return spacy.load(name, exclude=["parser", "ner", "lemmatizer"])
    except OSError as error:
        raise InvalidRequest(
            f"The spaCy pipeline {name!r} is not installed: python -m spacy download {name}"
        ) from error


def spacy_tags(name: str, text: str) -> list[str]:
    """Return the universal tag of each of spaCy's tokens, spaces left out."""
    return [token.pos_ for token in spacy_pipeline(name)(text) if not token.is_space]
