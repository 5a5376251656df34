"""Pictures of a run: which token was written when, with what marginal; needs matplotlib."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guided_dlm.errors import GuidedError, InvalidRequest
from guided_dlm.trace import Trace
from guided_dlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _require_matplotlib() -> None:
    try:
        import matplotlib.pyplot  # noqa: F401
    except ImportError as error:
        raise GuidedError("Plots need matplotlib: pip install 'guided-dlm[notebooks]'.") from error


def _require_trace(trace: Trace, row: int = 0) -> None:
    if not isinstance(trace, Trace) or not trace.steps:
        got = "an empty trace" if isinstance(trace, Trace) else repr(trace)
        raise InvalidRequest(
            f"There is nothing to draw: got {got}. Call the pipeline with return_trace=True, and give its out.trace."
        )
    rows = len(trace.steps[0].tokens_BL)
    if not -rows <= row < rows:
        raise InvalidRequest(f"row={row}: the trace has {rows} rows; give one from 0 to {rows - 1}.")


def written_when(trace: Trace, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the step at which each position was last written `[L]`, -1 for never, and its marginal then `[L]`."""
    _require_trace(trace, row)
    length = trace.steps[0].tokens_BL.shape[1]
    step_L, marginal_L = np.full(length, -1), np.zeros(length)
    for index, step in enumerate(trace.steps):
        written_L = step.written_BL[row].numpy()
        step_L[written_L] = index
        marginal_L[written_L] = step.marginal_BL[row].numpy()[written_L]
    return step_L, marginal_L


def _pieces(trace: Trace, vocabulary: Vocabulary, row: int) -> list[str]:
    """Return what each text token of the finished canvas adds, without its spaces; a bare space is an open box."""
    tokens = trace.steps[-1].tokens_BL[row].tolist()
    text = (vocabulary.tokens[t] for t in tokens[: vocabulary.text_length(tokens)])
    return [token.decode("utf-8", errors="replace").strip() or "\N{OPEN BOX}" for token in text]


def plot_canvas(trace: Trace, vocabulary: Vocabulary, row: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the canvas filling in: positions left to right, steps down, colour the written token's marginal."""
    _require_matplotlib()
    _require_trace(trace, row)
    import matplotlib.pyplot as plt

    pieces = [*_pieces(trace, vocabulary, row), "end"][: trace.steps[0].tokens_BL.shape[1]]
    shown = len(pieces)
    if ax is None:
        _, ax = plt.subplots(figsize=(0.34 * shown + 1.5, 0.17 * len(trace.steps) + 1.6), layout="constrained")
    grid = np.full((len(trace.steps), shown), np.nan)
    standing = np.zeros(grid.shape, dtype=bool)
    for index, step in enumerate(trace.steps):
        written_L = step.written_BL[row].numpy()[:shown]
        grid[index, written_L] = step.marginal_BL[row].numpy()[:shown][written_L]
        standing[index] = written_L | (standing[index - 1] if index else False)
    ax.imshow(np.where(standing, 0.0, np.nan), cmap="Greys", vmin=-6, vmax=40, aspect="auto")
    image = ax.imshow(grid, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(shown), pieces, rotation=90, fontsize=8, parse_math=False)
    ax.set_ylabel("step")
    ax.figure.colorbar(image, ax=ax, label="marginal of the written token", shrink=0.8)
    return ax


def plot_log_z(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw log Z over the steps, one line per row: how hard the constraint fights the model (0 is not at all)."""
    _require_matplotlib()
    _require_trace(trace)
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(5, 2.6), layout="constrained")
    ax.plot(np.stack([step.log_z_B.numpy() for step in trace.steps]), color="tab:blue", alpha=0.5, linewidth=1)
    ax.axhline(0, color="grey", linewidth=0.5)
    ax.set_xlabel("step")
    ax.set_ylabel("log Z (nats)")
    return ax


def plot_guides(trace: Trace, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draw what the soft guides did over the steps, mean over rows: how far each moved the laws, and its scores.

    Raises:
        InvalidRequest: no soft guide was in force.
    """
    _require_matplotlib()
    _require_trace(trace)
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for step in trace.steps for name in step.moved))
    if not names:
        raise InvalidRequest("No soft guide moved anything in this trace; plot_log_z shows hard constraints.")
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")[1]
    for name in names:
        for ax, kind in zip(axes, ("moved", "scores"), strict=True):
            values = [getattr(step, kind).get(name) for step in trace.steps]
            line = [np.nan if value is None else float(value.nanmean()) for value in values]
            if not np.isnan(line).all():
                ax.plot(line, label=name, linewidth=1.2)
    for ax, label in zip(axes, ("total variation to the model", "classifier's probability"), strict=True):
        ax.set(xlabel="step", ylabel=label, ylim=(-0.03, 1.03))
    axes[0].legend(fontsize=7)
    return axes


def canvas_html(trace: Trace, vocabulary: Vocabulary, row: int = 0) -> str:
    """Return the finished text as HTML, each token shaded by its marginal when written and titled with its step."""
    step_L, marginal_L = written_when(trace, row)
    spans = []
    for piece, step, marginal in zip(_pieces(trace, vocabulary, row), step_L, marginal_L, strict=False):
        style = f"background:rgba(33,145,140,{0.15 + 0.7 * (1 - marginal):.2f});border-radius:3px;padding:1px 3px"
        title = f"step {step}, marginal {marginal:.2f}"
        spans.append(f'<span style="{style}" title="{title}">{html.escape(piece)}</span>')
    return '<div style="line-height:1.9">' + " ".join(spans) + "</div>"
