"""The tasks of the control benchmark: which file of targets each reads, and what it asks for.

A new task is an `Aspect` of `control_aspects`, and a `Task` in `SUITES` that says which file and which aspects. Aspects
of one task are asked for at once and scored apart.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from guided_dlm.constraint import Constraint
from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.evaluation.control_aspects import (
    Aspect,
    MentionedSlot,
    PartsOfSpeech,
    Semantic,
    Spans,
    TokenCount,
    TreeShape,
    is_word,
)

T = TypeVar("T")
VALIDATION = "e2e/valid.jsonl.gz"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one target asks for, by aspect, and the texts that people wrote under it."""

    values: Mapping[str, Any]
    label: str
    human: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the published table, or several where aspects are combined.

    `published` has Diffusion-LM's control in percent, by aspect. With `merged`, lines that ask for equal values are one
    target, and targets come in the order of their values. From a file of other lines than targets,
    which may stand beside the folder, `drawn` lines are taken, evenly spread over those that fit. With `reader` what
    trees judge is also asked for softly, by the `SyntaxGuide` of that name and `reader_strength`.
    """

    name: str
    file: str
    aspects: tuple[Aspect, ...]
    published: Mapping[str, float] = field(default_factory=dict)
    merged: bool = False
    drawn: int | None = None
    reader: str | None = None
    reader_strength: float = 1.0

    def softened(self, tolerance: float) -> Task:
        """Return the task with this tolerance of its aspects."""
        return replace(self, aspects=tuple(aspect.softened(tolerance) for aspect in self.aspects))

    def targets(self, folder: str | Path, most: int | None = None) -> list[Target]:
        """Read the targets, or at most so many of them, evenly spread from the first to the last.

        Raises:
            InvalidRequest: the file is missing, a line is not what the task reads, or `most` is less than 1.
        """
        if most is not None and most < 1:
            raise InvalidRequest(f"targets={most}: give 1 or more, or leave it out for all.")
        if self.drawn is not None:
            return [self._target(*line) for line in _spread(self._drawn(Path(folder)), most)]
        found = [self._target(*line) for line in read_lines(Path(folder) / self.file)]
        return _spread(_merge(found) if self.merged else found, most)

    def _drawn(self, folder: Path) -> list[tuple[Any, str]]:
        beside = folder.parent / self.file
        path = beside if beside.is_file() else folder / self.file
        lines = read_lines(path)
        try:
            fitting = [line for line in lines if all(aspect.fits(line[0]) for aspect in self.aspects)]
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(f"{path} has lines that the task {self.name!r} cannot read: {error!r}.") from error
        if not fitting:
            raise InvalidRequest(f"{path} has no line that can be a target of the task {self.name!r}.")
        return _spread(fitting, self.drawn)

    def constraint(self, target: Target) -> Constraint:
        """Return the conjunction of the aspects' constraints.

        Raises:
            UnknownConstraint: no installed distribution registers one of them.
        """
        configs = [aspect.config(target.values[aspect.name]) for aspect in self.aspects]
        if self.reader is not None:
            asked = [config for config, one in zip(configs, self.aspects, strict=True) if one.judges == "trees"]
            guide = {"constraint": "syntax_guide", "model": self.reader, "strength": self.reader_strength}
            configs += [guide | {"wish": config} for config in asked]
        return Constraint.from_config(configs[0] if len(configs) == 1 else {"all": configs})

    def _target(self, record: Any, where: str) -> Target:
        try:
            values = {aspect.name: aspect.read(record) for aspect in self.aspects}
            words = _words(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{where} is no target of the task {self.name!r}: {error!r}.") from error
        if not all(values.values()):
            raise InvalidRequest(f"{where} asks for nothing: {values}.")
        human = " ".join(filter(is_word, words))
        label = ", ".join(aspect.label(values[aspect.name]) for aspect in self.aspects)
        return Target(values=values, label=label, human=(human,) if human else ())


def _words(record: Any) -> list[str]:
    """Return the words of the text that people wrote, none where there is no such text."""
    if not isinstance(record, Mapping):
        return []
    return str(record["text"]).split() if "text" in record else list(record["words_"])


def _spread(items: list[T], most: int | None) -> list[T]:
    """Return so many items, evenly spread from the first to the last; None for all."""
    if most is None or most >= len(items):
        return items
    return [items[index * (len(items) - 1) // max(1, most - 1)] for index in range(most)]


def _merge(targets: list[Target]) -> list[Target]:
    """Join targets of equal values, in the order of these."""
    groups: dict[tuple[Any, ...], list[Target]] = {}
    for target in targets:
        groups.setdefault(tuple(target.values.values()), []).append(target)
    return [
        Target(values=group[0].values, label=group[0].label, human=tuple(text for one in group for text in one.human))
        for _, group in sorted(groups.items())
    ]


def read_lines(path: Path) -> list[tuple[Any, str]]:
    """Return the JSON value of each line, and where it stands.

    Raises:
        InvalidRequest: the file is missing or empty, or a line is no JSON.
    """
    if not path.is_file():
        raise InvalidRequest(f"There are no targets in {str(path)!r}; give the folder that has this file as --data.")
    found = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            found.append((json.loads(line), f"{path}, line {number}"))
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"{path}, line {number} is no JSON: {error.msg}.") from error
    if not found:
        raise InvalidRequest(f"{path} is empty; it should hold one target per line.")
    return found


E2E = (
    Task(name="length", file="target_pos.jsonl", aspects=(TokenCount(),), published={"length": 99.9}, merged=True),
    Task(name="semantic", file="target_attribute.jsonl", aspects=(Semantic(),), published={"semantic": 81.2}),
    Task(name="pos", file="target_pos.jsonl", aspects=(PartsOfSpeech(),), published={"pos": 90.0}),
    Task(
        name="semantic+pos",
        file="target_compose_pos_attr.jsonl",
        aspects=(Semantic(), PartsOfSpeech()),
        published={"semantic": 63.7, "pos": 69.1},
    ),
    Task(name="spans", file="target_spans.jsonl", aspects=(Spans(),), published={"spans": 93.8}),
    Task(name="tree", file=VALIDATION, drawn=100, aspects=(TreeShape(),), published={"tree": 86.0}),
    Task(
        name="semantic+tree",
        file=VALIDATION,
        drawn=100,
        aspects=(MentionedSlot(), TreeShape()),
        published={"semantic": 69.8, "tree": 74.8},
    ),
)
SUITES: Mapping[str, tuple[Task, ...]] = {"e2e": E2E}


def find_tasks(
    suite: str,
    names: Sequence[str] = (),
    tolerance: float | None = None,
    reader: str | None = None,
    reader_strength: float = 1.0,
) -> list[Task]:
    """Return the tasks of a suite with these names, or all; `tolerance` is for aspects of tags, by default their own.

    `reader` is for aspects of trees: those whose judge shares nothing with it.

    Raises:
        UnknownName: there is no such suite or task.
    """
    if suite not in SUITES:
        raise UnknownName(f"There is no suite {suite!r}; there is {', '.join(SUITES)}.")
    tasks = {task.name: replace(task, reader=reader, reader_strength=reader_strength) for task in SUITES[suite]}
    if tolerance is not None:
        tasks = {name: task.softened(tolerance) for name, task in tasks.items()}
    for name in names:
        if name not in tasks:
            raise UnknownName(f"The suite {suite!r} has no task {name!r}; it has {', '.join(tasks)}.")
    return [tasks[name] for name in dict.fromkeys(names or tasks)]
