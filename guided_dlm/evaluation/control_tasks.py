"""The tasks of the control benchmark: which file of targets each reads, what it asks for, and how it scores that.

A new task is an `Aspect`, which reads its value from a line of the file, names the constraint and scores texts, and a
`Task` in `SUITES` that says which file and which aspects. Aspects of one task are asked for at once and scored apart.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from guided_dlm.constraint import Constraint
from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.evaluation.control_scores import Reading, Scores, length_scores, pos_scores, semantic_scores
from guided_dlm.evaluation.tagging import spacy_tagger

TOKEN = r"(?:\w+|[^\w\s]|'s|n't)"  # what spaCy's tokenizer leaves whole, rare contractions aside ("cant", "30lb")


class Aspect(ABC):
    """One thing that a target asks for; `tags` says whether taggers judge it."""

    name: ClassVar[str]
    tags: ClassVar[bool] = False

    @abstractmethod
    def read(self, record: Any) -> Any:
        """Return the value that a line of the file asks for; hashable, and sortable in a task of merged lines."""

    @abstractmethod
    def config(self, value: Any) -> dict[str, Any]:
        """Return the constraint that asks for the value, as plain JSON."""

    @abstractmethod
    def scores(self, texts: Sequence[Reading], value: Any) -> Scores:
        """Score each text."""

    def label(self, value: Any) -> str:
        """Return the value as tables show it."""
        return str(value)

    def prepare(self) -> None:
        """Raise before anything is sampled what scoring would raise after it: that no tagger is installed."""
        if self.tags:
            spacy_tagger()


class Semantic(Aspect):
    """A value of a slot, such as "The Vaults" of ["name", ":", "The", "Vaults"]."""

    name = "semantic"

    def read(self, record: Any) -> str:
        """Return the tokens after the first ":", joined."""
        tokens = record["attr"] if isinstance(record, Mapping) else record
        return " ".join(tokens[tokens.index(":") + 1 :])

    def config(self, value: str) -> dict[str, Any]:
        """Ask for the value as whole words."""
        return {"constraint": "words", "include": [value]}

    def scores(self, texts: Sequence[Reading], value: str) -> Scores:
        """See `semantic_scores`."""
        return semantic_scores(texts, value)


class PartsOfSpeech(Aspect):
    """The universal tags of all tokens, without START, END and the newline token before END."""

    name = "pos"
    tags = True

    def __init__(self, tolerance: float = 0.0) -> None:
        """Take the weight of a tag that a word does not bear: above 0 where another aspect may clash with some."""
        self.tolerance = tolerance

    def read(self, record: Any) -> tuple[str, ...]:
        """Return the tags of the words."""
        return tuple(tag for word, tag in zip(record["words_"], record["pos"], strict=True) if is_word(word))

    def config(self, value: tuple[str, ...]) -> dict[str, Any]:
        """Ask for this sequence, of words that seldom bear another tag."""
        wish = {"constraint": "part_of_speech", "pattern": list(value), "strength": 3.0}
        return wish | {"tolerance": self.tolerance} if self.tolerance else wish

    def scores(self, texts: Sequence[Reading], value: tuple[str, ...]) -> Scores:
        """See `pos_scores`."""
        return pos_scores(texts, value)

    def label(self, value: tuple[str, ...]) -> str:
        """Return the tags, a space between them."""
        return " ".join(value)


class TokenCount(Aspect):
    """The number of tokens of the line's own words."""

    name = "length"

    def read(self, record: Any) -> int:
        """Count the words, without START, END and the newline token."""
        return sum(map(is_word, record["words_"]))

    def config(self, value: int) -> dict[str, Any]:
        """Ask for so many words and marks between single spaces.

        A count of the model's tokens would not do: some are split again, and some words are spelled in several.
        """
        return {"constraint": "regex", "pattern": f"{TOKEN}(?: {TOKEN}){{{value - 1}}}"}

    def scores(self, texts: Sequence[Reading], value: int) -> Scores:
        """See `length_scores`."""
        return length_scores(texts, value)

    def label(self, value: int) -> str:
        """Return it with its unit."""
        return f"{value} tokens"


def is_word(token: str) -> bool:
    """Whether a token of `words_` is text: not START, END or a newline."""
    return token not in ("START", "END") and not token.isspace()


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
    target, and targets come in the order of their values.
    """

    name: str
    file: str
    aspects: tuple[Aspect, ...]
    published: Mapping[str, float] = field(default_factory=dict)
    merged: bool = False

    def targets(self, folder: str | Path, most: int | None = None) -> list[Target]:
        """Read the targets, or at most so many of them, evenly spread from the first to the last.

        Raises:
            InvalidRequest: the file is missing, a line is not what the task reads, or `most` is less than 1.
        """
        if most is not None and most < 1:
            raise InvalidRequest(f"targets={most}: give 1 or more, or leave it out for all.")
        found = [self._target(record, where) for record, where in read_lines(Path(folder) / self.file)]
        if self.merged:
            found = _merge(found)
        if most is None or most >= len(found):
            return found
        return [found[index * (len(found) - 1) // max(1, most - 1)] for index in range(most)]

    def constraint(self, target: Target) -> Constraint:
        """Return the conjunction of the aspects' constraints.

        Raises:
            UnknownConstraint: no installed distribution registers one of them.
        """
        configs = [aspect.config(target.values[aspect.name]) for aspect in self.aspects]
        return Constraint.from_config(configs[0] if len(configs) == 1 else {"all": configs})

    def _target(self, record: Any, where: str) -> Target:
        try:
            values = {aspect.name: aspect.read(record) for aspect in self.aspects}
            words = record["words_"] if isinstance(record, Mapping) else []
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{where} is no target of the task {self.name!r}: {error!r}.") from error
        if not all(values.values()):
            raise InvalidRequest(f"{where} asks for nothing: {values}.")
        human = " ".join(filter(is_word, words))
        label = ", ".join(aspect.label(values[aspect.name]) for aspect in self.aspects)
        return Target(values=values, label=label, human=(human,) if human else ())


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
    lines = path.read_text(encoding="utf-8").split("\n")
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
        aspects=(Semantic(), PartsOfSpeech(tolerance=1e-4)),
        published={"semantic": 63.7, "pos": 69.1},
    ),
)
SUITES: Mapping[str, tuple[Task, ...]] = {"e2e": E2E}


def find_tasks(suite: str, names: Sequence[str] = ()) -> list[Task]:
    """Return the tasks of a suite with these names, or all.

    Raises:
        UnknownName: there is no such suite or task.
    """
    if suite not in SUITES:
        raise UnknownName(f"There is no suite {suite!r}; there is {', '.join(SUITES)}.")
    tasks = {task.name: task for task in SUITES[suite]}
    for name in names:
        if name not in tasks:
            raise UnknownName(f"The suite {suite!r} has no task {name!r}; it has {', '.join(tasks)}.")
    return [tasks[name] for name in dict.fromkeys(names or tasks)]
