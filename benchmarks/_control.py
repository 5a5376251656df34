"""Control, fluency, diversity and cost of guided samples, case by case, and the picture of control against fluency."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from _report import RESULTS
from torch import nn

from guided_dlm import Constraint, GuidedPipeline
from guided_dlm.evaluation.fluency import Judge, diversity

HEADER = (
    "guide", "judge %", "guide %", "gap", "NLL", "NLL - unguided", "distinct of 50", "distinct-1/2/3", "self-BLEU",
    "denoiser calls", "classifier calls", "time / unguided",
)  # fmt: skip
Verdict = Callable[[list[str]], Sequence[bool]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to ask for a class of texts; `guide` is the module whose calls are counted, `base` the case beside it."""

    base: str = "unguided"
    constraint: Constraint | None = None
    options: dict[str, Any] = field(default_factory=dict)
    guide: nn.Module | None = None


@dataclass(kw_only=True)
class Found:
    """What one case wrote, seed by seed."""

    texts: list[list[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    denoiser_calls: int = 0
    classifier_calls: int = 0

    @property
    def together(self) -> list[str]:
        """The texts of all seeds that are not empty."""
        return [text for texts in self.texts for text in texts if text.strip()]


def sample(pipeline: GuidedPipeline, cases: dict[str, Case], seeds: int, samples: int, steps: int) -> dict[str, Found]:
    """Run every case once per seed, in turn."""
    found = {name: Found() for name in cases}
    for seed in range(seeds):
        for name, case in cases.items():
            calls: list[int] = []
            hook = None
            if case.guide is not None:
                hook = case.guide.register_forward_hook(lambda *args, calls=calls: calls.append(1))
            began = time.perf_counter()
            out = pipeline(constraint=case.constraint, num_samples=samples, steps=steps, seed=seed, **case.options)
            if hook is not None:
                hook.remove()
            found[name].seconds.append(time.perf_counter() - began)
            found[name].texts.append(out.texts)
            found[name].denoiser_calls, found[name].classifier_calls = out.denoiser_calls, len(calls)
            print(f"seed {seed}, {name}: {found[name].seconds[-1]:.1f} s; {out.texts[0][:90]}", flush=True)
    return found


def share(verdict: Verdict, texts: list[str]) -> float:
    """Percent of the texts that are said to be on target."""
    return 100 * float(sum(map(bool, verdict(texts)))) / max(1, len(texts))


def table(
    cases: dict[str, Case], found: dict[str, Found], judge: Verdict, guide: Verdict | None, fluency: Judge
) -> list[tuple[Any, ...]]:
    """Return one row per case; the range over seeds stands behind the judge's figure."""
    rows, nlls = [], {name: fluency.nll(one.together) for name, one in found.items()}
    for name, one in found.items():
        base = cases[name].base
        texts = one.together
        judged, by_seed = share(judge, texts), [share(judge, part) for part in one.texts]
        guided = share(guide, texts) if guide else None
        each = [diversity(part[:50]) for part in one.texts]
        grams = (statistics.mean(getattr(d, kind) for d in each) for kind in ("unigrams", "bigrams", "trigrams"))
        ratio = statistics.median(a / b for a, b in zip(one.seconds, found[base].seconds, strict=True))
        rows.append(
            (
                name,
                f"{judged:.1f} ({min(by_seed):.0f} to {max(by_seed):.0f})",
                "n/a" if guided is None else f"{guided:.1f}",
                "n/a" if guided is None else f"{guided - judged:+.1f}",
                f"{nlls[name]:.2f}",
                f"{nlls[name] - nlls[base]:+.2f}",
                f"{statistics.mean(len(set(part[:50])) for part in one.texts):.1f}",
                "/".join(f"{gram:.2f}" for gram in grams),
                f"{statistics.mean(d.self_bleu for d in each):.2f}",
                one.denoiser_calls,
                one.classifier_calls,
                f"{ratio:.2f}",
            )
        )
        print(rows[-1], flush=True)
    return rows


def draw(name: str, title: str, rows: list[tuple[Any, ...]]) -> Path:
    """Save control against fluency, a line through the strengths of each method; the target zone is shaded."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    methods: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        method, _, strength = row[0].rpartition(" @ ")
        methods.setdefault(method or row[0], []).append((float(row[5]), float(row[1].split()[0]), strength))
    for index, (method, points) in enumerate(methods.items()):
        x, y, labels = zip(*points, strict=True)
        axes.plot(x, y, marker="os^Dv*Px"[index % 8], label=method, linewidth=1)
        for at, label in zip(zip(x, y, strict=True), labels, strict=True):
            axes.annotate(label, at, textcoords="offset points", xytext=(4, -9), fontsize=7)
    axes.axvspan(min(axes.get_xlim()[0], 0), 0.5, ymin=0, color="tab:green", alpha=0.06)
    axes.axhline(95, color="tab:green", linewidth=0.8, linestyle="--")
    axes.set(title=title, xlabel="judge NLL above unguided, nats per token", ylabel="on target under the judge, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    plt.close(figure)
    return RESULTS / f"{name}.png"
