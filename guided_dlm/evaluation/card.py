"""A card of figures: of a model's texts beside human text, as Markdown, JSON and a histogram."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES, HELD_OUT, TRAINING = COLUMNS = ("samples", "held-out", "training")
SHOWN = 10  # how many texts a card shows: the first, so nobody picked them


@dataclass(frozen=True, kw_only=True)
class Card:
    """Figures by name, each with a value in one or more of the columns; what was left out, and why.

    The held-out and the training column are of human text, as many texts as there are samples, evenly spread over the
    file; a bound stands in the column of the text that it is on. `words` holds the length of each text, by column, and
    `samples` the first texts.
    """

    settings: dict[str, Any]
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    words: dict[str, list[int]] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)

    def add(self, column: str, figures: dict[str, float]) -> None:
        """Put figures into a column."""
        for name, value in figures.items():
            self.figures.setdefault(name, {})[column] = value

    def markdown(self) -> str:
        """Return the card as a Markdown table, aligned so that it reads well in a terminal too."""
        said = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        columns = [column for column in COLUMNS if any(column in values for values in self.figures.values())]
        rows = [[name, *(_shown(values.get(c)) for c in columns)] for name, values in self.figures.items()]
        widths = [max(map(len, cells)) for cells in zip(["figure", *columns], *rows, strict=True)]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in [["figure", *columns], ["-" * width for width in widths], *rows]
        ]
        left = "".join(f"- left out: {reason}\n" for reason in self.left_out)
        texts = "".join(f"{number}. {text}\n" for number, text in enumerate(self.samples, start=1))
        parts = [f"# {self.settings['model']}", said, "\n".join(lines), left.rstrip()]
        parts += [f"The first {len(self.samples)} samples:\n\n{texts}".rstrip()] if self.samples else []
        return "\n\n".join(filter(None, parts)) + "\n"

    def write(self, folder: str | Path) -> None:
        """Write the card to a folder as MODEL.json and MODEL.md, with the model's own name."""
        name = Path(self.settings["model"]).resolve().name
        rows = [{"figure": figure, **values} for figure, values in self.figures.items()]
        content = {"conditions": self.settings, "rows": rows, "left_out": self.left_out, "samples": self.samples}
        (Path(folder) / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (Path(folder) / f"{name}.md").write_text(self.markdown(), encoding="utf-8")

    def plot(self, path: str | Path) -> None:
        """Draw how long the texts are, in words, the samples beside human text; the suffix says in which format."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        shown = {column: self.words[column] for column in (SAMPLES, HELD_OUT, TRAINING) if column in self.words}
        longest = max(max(lengths) for lengths in shown.values())
        step = max(1, longest // 20)
        for column, lengths in shown.items():
            axes.hist(
                lengths,
                bins=[edge - 0.5 for edge in range(0, longest + step + 1, step)],
                weights=[1 / len(lengths)] * len(lengths),
                histtype="stepfilled" if column == SAMPLES else "step",
                alpha=0.5 if column == SAMPLES else 1.0,
                label=f"{column}, mean {np.mean(lengths):.1f}",
            )
        axes.set(xlabel="words", ylabel="share of texts", title=self.settings["model"])
        axes.legend()
        figure.savefig(path, dpi=150)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
