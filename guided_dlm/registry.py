"""Constraint names: which class each stands for, and which distribution it comes from.

Built-ins and third parties use the same two lines: `@register("length")` on the class, and an entry point
`length = "constraints.length:Length"` in the group `guided_dlm.constraints` of the distribution. The decorator names a
class that is already imported; the entry point finds one that is not. Standard library only, so listing names is fast.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, TypeVar

from guided_dlm.errors import BrokenPlugin, DuplicateConstraint, InvalidRequest, NotSerializable, UnknownConstraint

GROUP = "guided_dlm.constraints"
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")

T = TypeVar("T")


class Registration(NamedTuple):
    """A name and the class behind it: `target` is "module:qualname"; a class made in this process has no version."""

    name: str
    target: str
    distribution: str
    version: str

    def __str__(self) -> str:
        """Read as "module:qualname (distribution version)"."""
        return f"{self.target} ({' '.join(filter(None, (self.distribution, self.version)))})"


class _Entry(NamedTuple):
    cls: type
    replaces: bool


class Registry:
    """The names of one entry-point group, plus the classes registered in this process.

    The exception to the rule of no mutable state in a module: decorators need a place to write to.
    """

    def __init__(self, group: str = GROUP) -> None:
        self.group = group
        self._entries: dict[str, _Entry] = {}

    def register(self, name: str, *, replace: bool = False) -> Callable[[type[T]], type[T]]:
        """Decorate a class to give it a name, also written to `cls.name`; `replace=True` takes the name from its owner.

        Raises `InvalidRequest` for a malformed name and `DuplicateConstraint` for one that is taken.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is not a constraint name. "
                'Write @register("my-name"), in lower-case letters, digits, "-" and "_", starting with a letter.'
            )

        def decorate(cls: type[T]) -> type[T]:
            if replace or not self._is_replaced(name, cls):
                if not replace:
                    self._refuse_duplicate(name, cls)
                self._entries[name] = _Entry(cls, replace)
            cls.name = name  # type: ignore[attr-defined]
            return cls

        return decorate

    def names(self) -> list[str]:
        """All names, sorted; imports no constraint."""
        return sorted({*self._entries, *(point.name for point in self._points())})

    def get(self, name: str) -> type:
        """The class behind a name; imports that one if need be.

        Raises `UnknownConstraint`, `DuplicateConstraint` if two distributions claim the name, or `BrokenPlugin`.
        """
        entry = self._entries.get(name)
        if entry is not None and entry.replaces:
            return entry.cls
        points = self._points(name)
        if len(points) > 1:
            first, second, *_ = map(_described, points)
            raise DuplicateConstraint(
                f"Two distributions claim the constraint name {name!r}: {first} and {second}. "
                "Uninstall one, or register the class you want with replace=True."
            )
        if entry is not None:
            return entry.cls
        if not points:
            raise UnknownConstraint(self._unknown(name))
        return self._load(points[0])

    def name_of(self, cls: type) -> str:
        """The name under which `get` finds this class; raises `NotSerializable` if there is none."""
        name: str = cls.__dict__.get("name", "")
        entry = self._entries.get(name)
        if entry is None:
            raise NotSerializable(
                f"{_target(cls)} has no registered name, so a config cannot name it. "
                'Decorate the class with @register("my-name") from guided_dlm.'
            )
        if _target(entry.cls) != _target(cls):
            raise NotSerializable(
                f"{_target(cls)} lost its name {name!r} to {_target(entry.cls)}, registered with replace=True, "
                "so a config that says this name would build the other class. Use that class, or give it another name."
            )
        return name

    def describe(self) -> list[Registration]:
        """Every name with its class, distribution and version, sorted; imports no constraint.

        A name that two distributions claim has two rows, unless a class of this process replaces both.
        """
        replaced = {name for name, entry in self._entries.items() if entry.replaces}
        rows = [_described(point) for point in self._points() if point.name not in replaced]
        listed = {row.name for row in rows}
        rows += [_in_process(name, entry.cls) for name, entry in self._entries.items() if name not in listed]
        return sorted(rows)

    def _points(self, name: str | None = None) -> list[EntryPoint]:
        return [point for point in entry_points(group=self.group) if name is None or point.name == name]

    def _is_replaced(self, name: str, cls: type) -> bool:
        """Whether the original owner of a name is merely being imported after its replacement."""
        entry = self._entries.get(name)
        return entry is not None and entry.replaces and any(_owns(point, cls) for point in self._points(name))

    def _refuse_duplicate(self, name: str, cls: type) -> None:
        entry, points = self._entries.get(name), self._points(name)
        if entry is not None and _target(entry.cls) != _target(cls):
            owner = next((_described(point) for point in points if _owns(point, entry.cls)), None)
            owner = owner or _in_process(name, entry.cls)
        elif points and not any(_owns(point, cls) for point in points):
            owner = _described(points[0])
        else:
            return
        raise DuplicateConstraint(
            f"{_target(cls)} cannot register the constraint name {name!r}: it belongs to {owner}. "
            "Choose another name, or write replace=True to take it over."
        )

    def _load(self, point: EntryPoint) -> type:
        before = dict(self._entries)
        try:
            cls = point.load()
        except Exception as error:
            # Python forgets a module whose import failed; so do we, for its classes may be half made.
            kept = {name: entry for name, entry in self._entries.items() if entry.cls.__module__ in sys.modules}
            self._entries = before | kept
            if isinstance(error, DuplicateConstraint):
                raise
            raise BrokenPlugin(_broken(point, f"could not be imported: {type(error).__name__}: {error}")) from error
        if not isinstance(cls, type) or cls.__dict__.get("name") != point.name:
            raise BrokenPlugin(_broken(point, f'is not a class decorated with @register("{point.name}")'))
        return self._entries.setdefault(point.name, _Entry(cls, replaces=False)).cls

    def _unknown(self, name: str) -> str:
        near = get_close_matches(str(name), self.names())
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"No constraint is named {name!r}.{hint} The command `guided-dlm constraints` lists all names."


def _target(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _described(point: EntryPoint) -> Registration:
    distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "")
    return Registration(point.name, point.value, distribution, version)


def _in_process(name: str, cls: type) -> Registration:
    return Registration(name, _target(cls), "this process", "")


def _owns(point: EntryPoint, cls: type) -> bool:
    """Whether a class is defined in the top-level package that an entry point names: it may point at a re-export."""
    return point.module.partition(".")[0] == cls.__module__.partition(".")[0]


def _broken(point: EntryPoint, reason: str) -> str:
    row = _described(point)
    return (
        f"The constraint {row.name!r} of {row.distribution} {row.version} is broken: {row.target} {reason}. "
        f"Repair or uninstall {row.distribution}; all other constraints still work."
    )


default = Registry()
register = default.register
names = default.names
get = default.get
name_of = default.name_of
describe = default.describe
