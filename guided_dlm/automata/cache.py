"""Lifted automata on disk: a lift to a large vocabulary is made once per machine.

Files are in `$GUIDED_DLM_CACHE`, by default `guided_dlm` in the user's cache folder; "off" keeps nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from guided_dlm.automata.dfa import Dfa
from guided_dlm.automata.token import TokenAutomaton

if TYPE_CHECKING:
    from guided_dlm.automata.byte import ByteAutomaton
    from guided_dlm.vocabulary import Vocabulary

SMALL_VOCABULARY = 16_384  # below this many tokens a lift is about as fast as a file
MOST_BYTES = 1 << 29
_FORMAT = 1  # of the files; to be raised when what a lift means changes
_LOG = logging.getLogger(__name__)


def folder() -> Path | None:
    """Return where lifted automata are kept, or None where nothing is."""
    chosen = os.environ.get("GUIDED_DLM_CACHE")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guided_dlm"


def cached(automaton: ByteAutomaton, vocabulary: Vocabulary, build: Callable[[], TokenAutomaton]) -> TokenAutomaton:
    """Return the lift from disk, or build it and keep it; a file that cannot be read or written is said in the log."""
    place = folder()
    if place is None or len(vocabulary) < SMALL_VOCABULARY:
        return build()
    path = place / f"{_key(automaton, vocabulary)}.npz"
    kept = _read(path, vocabulary) if path.exists() else None
    if kept is not None:
        return kept
    lifted = build()
    try:
        _write(path, lifted)
    except OSError as error:
        _LOG.warning("The automaton cannot be kept in %s: %s.", path, error)
    return lifted


def _read(path: Path, vocabulary: Vocabulary) -> TokenAutomaton | None:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            dfa = Dfa(file["transitions"], file["accepting"], file["token_class"].astype(np.int64))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        _LOG.warning("The cached automaton %s cannot be read (%s); it is made again.", path, error)
        return None
    return TokenAutomaton(dfa, vocabulary, minimal=True)


def _key(automaton: ByteAutomaton, vocabulary: Vocabulary) -> str:
    said = (_FORMAT, version("guided-dlm"), vocabulary.fingerprint, automaton.table.shape)
    digest = hashlib.sha256(repr(said).encode())
    for array in (automaton.table, automaton.byte_class, automaton.accepting):
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def _write(path: Path, lifted: TokenAutomaton) -> None:
    """Write to a file of its own and move it into place, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.savez(file, transitions=lifted.transitions, accepting=lifted.accepting, token_class=lifted.token_class)
        except OSError:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)
    kept = sorted(path.parent.glob("*.npz"), key=lambda one: one.stat().st_mtime)
    size = sum(one.stat().st_size for one in kept)
    for oldest in kept[:-1]:
        if size <= MOST_BYTES:
            break
        size -= oldest.stat().st_size
        oldest.unlink(missing_ok=True)
