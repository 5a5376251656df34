"""How a model is sampled where nobody says: its `sampling` section, chosen from a table of quality against calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from guided_dlm.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """The settings of a call that names none, or, once filled, those of a call.

    `sampler` and `corrector` are names, or in a call what they name; `clean` is what a step of a Gaussian model moves
    towards (None: as `GaussianProcess` does by itself).
    """

    steps: int = 32
    temperature: float = 1.0
    sampler: Any = "confidence"
    corrector: Any = None
    top_p: float | None = None
    clean: str | None = None

    @classmethod
    def read(cls, section: Any, file: str) -> SamplingDefaults:
        """Return the section of a model's config; None is a model without one.

        Raises:
            InvalidRequest: it is no mapping, has a key that does not exist, or a value out of range.
        """
        if section is None:
            return cls()
        if not isinstance(section, Mapping):
            raise InvalidRequest(f"{file}: sampling={section!r} must be an object of {', '.join(_VALUES)}.")
        for key, value in section.items():
            if key not in _VALUES:
                raise InvalidRequest(f"{file}: sampling has no key {key!r}; it may say {', '.join(_VALUES)}.")
            fits, what = _VALUES[key]
            if not fits(value):
                raise InvalidRequest(f"{file}: sampling.{key}={value!r} must be {what}.")
        return cls(**section)

    def fill(self, *, verified: bool = False, weighted: bool = False, **said: Any) -> SamplingDefaults:
        """Return what a call says, and these defaults where it says None; a corrector "none" is none.

        A run with a verifier has that model's law, so temperature, top-p, sampler and corrector are not of this one.
        Weights of particles are not known with a corrector, so a weighted run leaves out a default one.
        """
        own = SamplingDefaults(steps=self.steps, clean=self.clean) if verified else self
        own = replace(own, corrector=None) if weighted else own
        found = replace(own, **{name: value for name, value in said.items() if value is not None})
        return replace(found, corrector=None) if found.corrector == "none" else found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_within(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


# The mode (temperature 0) is no default: it draws nothing, which particles and reranking need.
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (_is_count, "a whole number, at least 1"),
    "temperature": (_is_within(0.01, 100.0), "a number in [0.01, 100]"),
    "sampler": (_is_name, "the name of a commit rule"),
    "corrector": (_is_name, "the name of a corrector"),
    "top_p": (_is_within(1e-9, 1.0), "a number above 0, at most 1"),
    "clean": (lambda value: value in ("draw", "mean"), "'draw' or 'mean'"),
}
