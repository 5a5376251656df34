"""Every error this library raises on purpose, under one base class.

A message says what happened, where (row, position, JSON path), and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class GuidedError(Exception):
    """Base class of all errors raised on purpose by guided_dlm and its constraints."""


class InvalidRequest(GuidedError, ValueError):
    """An argument is out of range, of the wrong kind, or contradicts another argument."""


class UnknownName(GuidedError, LookupError):
    """A model, sampler or schedule name that nobody registered; the message suggests near ones."""


class UnknownConstraint(UnknownName):
    """A constraint name that no installed distribution registers; the message suggests near ones."""


class DuplicateConstraint(GuidedError, ValueError):
    """Two classes claim one constraint name and `replace=True` was not given."""


class BrokenPlugin(GuidedError, ImportError):
    """A registered constraint could not be imported; the message names its distribution."""


class Infeasible(GuidedError, ValueError):
    """No text satisfies the request in this canvas; the message names the constraints that clash."""


class AutomatonTooLarge(GuidedError, MemoryError):
    """An automaton outgrew its limit; the message says the size and what made it so."""


class UnsupportedPattern(GuidedError, ValueError):
    """A regular expression uses a construct that is not regular, or does not parse."""


class UnsupportedSchema(GuidedError, ValueError):
    """A JSON Schema keyword cannot be enforced; the message names it and its JSON path."""


class VocabularyMismatch(GuidedError, ValueError):
    """Two objects compiled for different vocabularies were combined."""


class GuideFailed(GuidedError, RuntimeError):
    """A soft guide raised, or returned what is no number; the message names the guide and the step."""


class NotSerializable(GuidedError, TypeError):
    """A constraint holds something that plain JSON cannot name."""


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put where it happened before the message of an error of ours; a `TypeError` or `ValueError` becomes one."""
    try:
        yield
    except GuidedError as error:
        raise type(error)(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{where}: {error}") from error


def shorten(text: str, most: int = 60) -> str:
    """Return the first line of a text, cut to what an error message has room for."""
    line = text.partition("\n")[0]
    return text if text == line[:most] else f"{line[: most - 3]}..."
