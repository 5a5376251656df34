"""Pictures of a run: the right tokens at the right steps, and HTML that cannot be broken by a token."""

from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch

from guided_dlm import Vocabulary
from guided_dlm.errors import InvalidRequest
from guided_dlm.trace import Trace, TraceStep
from guided_dlm.visualize import canvas_html, plot_canvas, plot_log_z, written_when

matplotlib.use("Agg")

TOKENS = [b" a", b" <b>&\"'", b" end", b" $_{$", b" ", b"<eos>", b"<pad>", b"<mask>"]
VOCABULARY = Vocabulary.from_tokens(TOKENS, eos_id=5, pad_id=6, mask_id=7)
MASK = 7


def trace_of(steps: list[list[list[int]]], marginal: float = 0.5) -> Trace:
    """A trace whose canvas, step by step, is the one given; rows x positions."""
    trace, before = Trace(), torch.full((len(steps[0]), len(steps[0][0])), MASK)
    for index, canvas in enumerate(steps):
        tokens = torch.tensor(canvas)
        written = tokens != before
        trace.steps.append(
            TraceStep(
                time=1 - (index + 1) / len(steps),
                tokens_BL=tokens,
                written_BL=written,
                marginal_BL=written * (marginal + 0.1 * index),
                log_z_B=-torch.arange(len(canvas)).double() - index,
            )
        )
        before = tokens
    return trace


RUN = [[[7, 1, 7, 7, 7]], [[0, 1, 7, 7, 7]], [[0, 1, 2, 5, 6]]]


class Spans(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def parsed(html: str) -> Spans:
    spans = Spans()
    spans.feed(html)
    return spans


def test_each_position_has_the_step_and_marginal_of_its_writing() -> None:
    step, marginal = written_when(trace_of(RUN))
    assert step.tolist() == [1, 0, 2, 2, 2]
    np.testing.assert_allclose(marginal, [0.6, 0.5, 0.7, 0.7, 0.7], atol=1e-6)
    never, _ = written_when(trace_of([[[7, 1]], [[7, 1]]]))
    assert never.tolist() == [-1, 0]


def test_the_row_asked_for_is_the_row_shown() -> None:
    trace = trace_of([[[0, 5], [2, 5]]])
    assert parsed(canvas_html(trace, VOCABULARY, row=0)).texts == ["a"]
    assert parsed(canvas_html(trace, VOCABULARY, row=1)).texts == ["end"]


def test_html_shows_the_text_and_escapes_every_token() -> None:
    html = canvas_html(trace_of(RUN), VOCABULARY)
    spans = parsed(html)
    assert spans.texts == ["a", "<b>&\"'", "end"]  # "end" here is a word of the text
    assert spans.tags == ["div", "span", "span", "span"]
    assert [title.split(",")[0] for title in spans.titles] == ["step 1", "step 0", "step 2"]
    assert "<b>" not in html


def test_html_of_an_empty_text_is_empty() -> None:
    assert parsed(canvas_html(trace_of([[[5, 6]]]), VOCABULARY)).texts == []


def test_a_bare_space_can_be_seen() -> None:
    assert parsed(canvas_html(trace_of([[[0, 4, 0]]]), VOCABULARY)).texts == ["a", "\N{OPEN BOX}", "a"]


@pytest.mark.parametrize(
    ("canvas", "labels"),
    [
        ([0, 1, 2, 5, 6], ["a", "<b>&\"'", "end", "end"]),
        ([2, 0, 0, 0, 2], ["end", "a", "a", "a", "end"]),  # no end of text: all five are words
        ([5, 6, 6, 6, 6], ["end"]),
        ([3, 3, 5, 6, 6], ["$_{$", "$_{$", "end"]),
    ],
)
def test_the_picture_has_a_label_for_every_token_and_one_for_the_end(canvas: list[int], labels: list[str]) -> None:
    ax = plot_canvas(trace_of([[[7] * 5], [canvas]]), VOCABULARY)
    assert [label.get_text() for label in ax.get_xticklabels()] == labels
    ax.figure.canvas.draw()  # a token is not mathematics
    assert ax.images[-1].get_array().shape == (2, len(labels))
    matplotlib.pyplot.close(ax.figure)


def test_the_picture_is_coloured_where_and_when_tokens_were_written() -> None:
    ax = plot_canvas(trace_of(RUN), VOCABULARY)
    grid = np.ma.filled(ax.images[-1].get_array().astype(float), np.nan)
    np.testing.assert_array_equal(
        np.isfinite(grid),
        np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]], dtype=bool),
    )
    assert grid[1, 0] == pytest.approx(0.6)
    standing = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    np.testing.assert_array_equal(np.isfinite(standing).sum(1), [1, 2, 4])
    matplotlib.pyplot.close(ax.figure)


def test_pictures_can_be_drawn_into_given_axes() -> None:
    figure, (left, right) = matplotlib.pyplot.subplots(1, 2)
    assert plot_canvas(trace_of(RUN), VOCABULARY, ax=left) is left
    assert plot_log_z(trace_of(RUN), ax=right) is right
    matplotlib.pyplot.close(figure)


def test_log_z_has_a_line_per_row_and_a_point_per_step() -> None:
    ax = plot_log_z(trace_of([[[7, 1], [7, 1]], [[0, 1], [0, 1]]]))
    lines = [line.get_ydata().tolist() for line in ax.lines[:2]]
    assert lines == [[0.0, -1.0], [-1.0, -2.0]]
    matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize("draw", [written_when, plot_canvas, canvas_html, plot_log_z])
@pytest.mark.parametrize("trace", [None, Trace(), "trace"])
def test_without_a_trace_the_message_says_how_to_get_one(draw: object, trace: object) -> None:
    arguments = (trace, VOCABULARY) if draw in (plot_canvas, canvas_html) else (trace,)
    with pytest.raises(InvalidRequest, match=r"nothing to draw.*return_trace=True"):
        draw(*arguments)  # type: ignore[operator]


@pytest.mark.parametrize("row", [2, -3])
def test_a_row_that_is_not_there_is_refused(row: int) -> None:
    trace = trace_of([[[0, 5], [2, 5]]])
    for draw in (plot_canvas, canvas_html):
        with pytest.raises(InvalidRequest, match=rf"row={row}: .*2 rows; give one from 0 to 1"):
            draw(trace, VOCABULARY, row=row)
    with pytest.raises(InvalidRequest, match=f"row={row}"):
        written_when(trace, row)
