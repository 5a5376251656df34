"""What the control benchmark found out: texts by target and seed, summed up to one row for each aspect of a task.

Every figure is a mean over targets, each of them a mean over seeds; intervals are 95 %, over targets.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from guided_dlm.evaluation.control_scores import bootstrap
from guided_dlm.evaluation.control_tasks import Target, Task
from guided_dlm.evaluation.control_texts import Written
from guided_dlm.evaluation.fluency import Diversity

PER = 50  # texts that `seconds` are for, as in the published table
NLL_MARGIN, DISTINCT_SHARE = 0.5, 0.9  # what passes


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean scores of some texts by one aspect; see `Scores`."""

    published: float
    strict: float
    second: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found out about some texts; None where there is none or nobody to judge. `nll` leaves empty ones out."""

    written: Written
    scores: Mapping[str, Mean]
    nll: float | None
    diversity: Diversity | None
    empty: int


@dataclass(kw_only=True)
class Results:
    """What was found out about one task: unguided texts by seed, each target's texts by seed, and its human texts."""

    task: Task
    targets: list[Target]
    unguided: list[Measured] = field(default_factory=list)
    guided: list[list[Measured]] = field(default_factory=list)
    human: list[Measured | None] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over targets, with its interval; `known` is how many targets it is of."""

    mean: float
    low: float
    high: float
    known: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One aspect of one task; shares from 0 to 1, NLL in nats per token, seconds for 50 texts. None: not known.

    `second` is the published rule by a second judge, `agreed` the share of texts that the constraint finds right.
    """

    task: str
    aspect: str
    targets: int
    refused: int
    empty: int
    control: Estimate
    by_seed: list[float]
    strict: Estimate
    second: float | None
    agreed: float | None
    human_control: float | None
    human_strict: float | None
    human_second: float | None
    diffusion_lm: float | None
    nll: Estimate | None
    nll_unguided: float | None
    nll_human: float | None
    distinct: float | None
    distinct_unguided: float | None
    unigrams: float | None
    bigrams: float | None
    trigrams: float | None
    self_bleu: float | None
    self_bleu_unguided: float | None
    seconds: float | None
    seconds_ratio: float | None
    denoiser_calls: float | None
    classifier_calls: float | None

    @property
    def gap(self) -> float | None:
        """How much more often the constraint finds a text right than the judge does, by the stricter rule."""
        return None if self.agreed is None else self.agreed - self.strict.mean

    @property
    def nll_passes(self) -> bool | None:
        """Whether NLL is at most 0.5 above the larger of unguided and human, or the one of them that is known."""
        beside = [nll for nll in (self.nll_unguided, self.nll_human) if nll is not None]
        return self.nll.mean <= max(beside) + NLL_MARGIN if self.nll is not None and beside else None

    @property
    def distinct_passes(self) -> bool | None:
        """Whether distinct outputs are at least 90 % of those without a wish."""
        if self.distinct is None or self.distinct_unguided is None:
            return None
        return self.distinct >= DISTINCT_SHARE * self.distinct_unguided


def task_rows(found: Results) -> list[Row]:
    """Sum up a task: one row for each aspect, with the same fluency, diversity and cost in each."""
    shared = _shared(found)
    return [Row(**_control(found, aspect.name), **shared) for aspect in found.task.aspects]


def _control(found: Results, aspect: str) -> dict[str, Any]:
    human = [one.scores[aspect] for one in found.human if one is not None]
    published = found.task.published.get(aspect)
    turns = zip(*found.guided, strict=True)
    return {
        "aspect": aspect,
        "control": _estimate(found, lambda one: one.scores[aspect].published),
        "by_seed": [statistics.fmean(one.scores[aspect].published for one in turn) for turn in turns],
        "strict": _estimate(found, lambda one: one.scores[aspect].strict),
        "second": _mean(found, lambda one: one.scores[aspect].second),
        "agreed": _mean(found, lambda one: one.written.agreed.get(aspect)),
        "human_control": average(one.published for one in human),
        "human_strict": average(one.strict for one in human),
        "human_second": average(one.second for one in human),
        "diffusion_lm": None if published is None else published / 100,
    }


def _shared(found: Results) -> dict[str, Any]:
    every = [one for by_seed in found.guided for one in by_seed]
    return {
        "task": found.task.name,
        "targets": len(found.targets),
        "refused": sum(any(one.written.refused is not None for one in by_seed) for by_seed in found.guided),
        "empty": sum(one.empty for one in every),
        "nll": _estimate(found, lambda one: one.nll),
        "nll_unguided": average(one.nll for one in found.unguided),
        "nll_human": average(one.nll for one in found.human if one is not None),
        "distinct": _mean(found, lambda one: _of(one, "texts")),
        "distinct_unguided": average(_of(one, "texts") for one in found.unguided),
        **{name: _mean(found, partial(_of, name=name)) for name in ("unigrams", "bigrams", "trigrams")},
        "self_bleu": _mean(found, lambda one: _of(one, "self_bleu")),
        "self_bleu_unguided": average(_of(one, "self_bleu") for one in found.unguided),
        "seconds": _mean(found, seconds_per_50),
        "seconds_ratio": _seconds_ratio(found),
        "denoiser_calls": average(one.written.denoiser_calls for one in every),
        "classifier_calls": average(one.written.classifier_calls for one in every),
    }


def seconds_per_50(one: Measured) -> float | None:
    """Return how long 50 texts would take at this rate."""
    seconds, texts = one.written.seconds, one.written.texts
    return seconds * PER / len(texts) if seconds is not None and texts else None


def _of(one: Measured, name: str) -> float | None:
    return None if one.diversity is None else float(getattr(one.diversity, name))


def _seconds_ratio(found: Results) -> float | None:
    """Return time / unguided: within each seed, since these ran beside each other, then the mean."""
    ratios = []
    for free, *turn in zip(found.unguided, *found.guided, strict=False):
        beside, here = seconds_per_50(free), average(map(seconds_per_50, turn))
        ratios.append(None if beside is None or here is None else here / beside)
    return average(ratios)


def average(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known, or None."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _by_target(found: Results, of: Callable[[Measured], float | None]) -> list[float]:
    means = (average(map(of, by_seed)) for by_seed in found.guided)
    return [mean for mean in means if mean is not None]


def _mean(found: Results, of: Callable[[Measured], float | None]) -> float | None:
    return average(_by_target(found, of))


def _estimate(found: Results, of: Callable[[Measured], float | None]) -> Estimate | None:
    values = _by_target(found, of)
    if not values:
        return None
    low, high = bootstrap(values)
    return Estimate(mean=statistics.fmean(values), low=low, high=high, known=len(values))


def target_records(found: Results) -> list[dict[str, Any]]:
    """Return what was found out about each target, for the JSON file."""
    records = []
    for target, by_seed, human in zip(found.targets, found.guided, found.human, strict=True):
        scores = {
            aspect.name: {
                "control": [one.scores[aspect.name].published for one in by_seed],
                "strict": [one.scores[aspect.name].strict for one in by_seed],
                "second": [one.scores[aspect.name].second for one in by_seed],
                "human_control": None if human is None else human.scores[aspect.name].published,
                "human_strict": None if human is None else human.scores[aspect.name].strict,
            }
            for aspect in found.task.aspects
        }
        records.append(
            {
                "task": found.task.name,
                "target": target.label,
                "refused": next((one.written.refused for one in by_seed if one.written.refused), None),
                "scores": scores,
                "nll": [one.nll for one in by_seed],
                "nll_human": None if human is None else human.nll,
                "distinct": [_of(one, "texts") for one in by_seed],
                "seconds_per_50": [seconds_per_50(one) for one in by_seed],
                "example": next((one.written.texts[0] for one in by_seed if one.written.texts), None),
            }
        )
    return records
