"""Filling blanks: is what is given kept, and how near is what is written to what people wrote there?

Two tasks. "e2e" takes held-out texts and blanks out a run of words in the middle; "anlg" (1908.05739) gives two
observations and asks for the sentence between them. Both are a `Template` of fixed text, one blank and fixed text, so
what is given is kept by automaton, and its share is a check of that promise.

No shipped model is trained on stories. What one writes between two observations of aNLG measures the constraint: what
fits the canvas, what it costs, that nothing given is lost. It says nothing of how well a model of stories would do, and
is no figure to set beside Diffusion-LM's (BLEU-4 7.1, ROUGE-L 28.3; 2205.14217, Table 6).
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from tqdm.auto import tqdm

from guided_dlm.arguments import check_counts
from guided_dlm.constraint import Constraint
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest, UnknownName
from guided_dlm.evaluation.card import HELD_OUT, SAMPLES, Card
from guided_dlm.evaluation.fluency import Judge
from guided_dlm.evaluation.model import spread
from guided_dlm.pipeline import GuidedPipeline
from guided_dlm.training.data import read_texts
from guided_dlm.training.pairs import as_prompt

FILL = {"blank": {"words": [1, None], "regex": r"\S(?:.*\S)?"}}
SAMPLING = ("steps", "sampler", "corrector", "temperature")  # the model's own where the request says None
NO_STORIES = "the quality of stories: no shipped model is trained on any, so its figures are of the constraint alone"
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Gap:
    """A text with a blank: what stands before and after it, spaces included, and what people wrote in it."""

    before: str
    after: str
    fills: tuple[str, ...]

    def constraint(self) -> Constraint:
        """Return the template: the blank has at least one word, and no space at its edges.

        Raises:
            UnknownName: no installed distribution has a template.
        """
        return Constraint.from_config({"constraint": "template", "parts": [self.before, FILL, self.after]})

    def fill_of(self, text: str) -> str | None:
        """Return what a text has in the blank; None where it does not keep what was given."""
        room = len(text) - len(self.before) - len(self.after)
        kept = room >= 0 and text.startswith(self.before) and text.endswith(self.after)
        return text[len(self.before) : len(self.before) + room] if kept else None


@dataclass(frozen=True, kw_only=True)
class InfillingRequest:
    """What to measure: `samples` texts for each of at most `targets` gaps of a task's file, evenly spread.

    `blank` is how many words of a text are blanked out ("e2e"); `prompt` is a line before each text, such as the label
    of a model of labels; `judge` the folder of an autoregressive model. Steps, sampler, corrector ("none" for none) and
    temperature are the model's own by default.
    """

    data: str
    task: str = "e2e"
    model: str = "restaurant-words"
    prompt: str | None = None
    targets: int | None = None
    samples: int = 1
    blank: int = 4
    steps: int | None = None
    sampler: str | None = None
    corrector: str | None = None
    temperature: float | None = None
    seed: int = 0
    judge: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Filled:
    """The texts of one gap, and how long all of them took, in seconds; none where it was refused, with the reason."""

    gap: Gap
    texts: tuple[str, ...]
    seconds: float = 0.0
    refused: str | None = None


def evaluate_infilling(request: InfillingRequest, out: str | Path | None = None, progress: bool = False) -> Card:
    """Fill the gaps of a task and measure; write the card to the folder `out`, where it is given.

    Gaps that the canvas has no room for, or that hold what the model cannot write, are refused: they are counted, and
    left out of the figures.

    Raises:
        UnknownName: there is no such task or model, or no constraint named "template".
        InvalidRequest: the file is missing or is not what it should be, or an option is out of range.
    """
    check_counts(samples=request.samples, blank=request.blank, **_given(targets=request.targets))
    if request.task not in TASKS:
        raise UnknownName(f"There is no infilling task {request.task!r}; choose {' or '.join(map(repr, TASKS))}.")
    gaps, left_out = TASKS[request.task](request)
    judge = None if request.judge is None else Judge(request.judge)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
    pipeline = GuidedPipeline.from_pretrained(request.model, device=request.device)
    chosen = spread(gaps, len(gaps) if request.targets is None else request.targets)
    filled = list(fill(pipeline, chosen, request, progress))
    used = asdict(pipeline.denoiser.sampling.fill(**{name: getattr(request, name) for name in SAMPLING}))
    card = Card(settings=_settings(request) | {name: used[name] for name in SAMPLING}, left_out=left_out)
    _add_refusals(card, filled)
    _add_figures(card, [one for one in filled if one.refused is None], judge)
    if out is not None:
        card.write(out)
    return card


def _given(**counts: int | None) -> dict[str, int]:
    return {name: value for name, value in counts.items() if value is not None}


def _settings(request: InfillingRequest) -> dict[str, Any]:
    """Return the request and the machine, without the places of files."""
    places = {name: Path(place).name for name in ("data", "judge") if (place := getattr(request, name)) is not None}
    unused = {} if request.task == "e2e" else {"blank": None}
    return {
        **asdict(request),
        **places,
        **unused,
        "model": Path(request.model).name,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def read_blanked(request: InfillingRequest) -> tuple[list[Gap], list[str]]:
    """Return texts with a run of `blank` white-space words blanked out, and what was left out.

    The run is drawn from the seed and the text's number; a word stays at either end.
    """
    gaps, texts = [], read_texts(request.data, "validation")
    for number, text in enumerate(texts):
        words = text.split()
        if len(words) < request.blank + 2:
            continue
        begin = random.Random(f"{request.seed} {number}").randint(1, len(words) - request.blank - 1)
        end = begin + request.blank
        if any(character.isalnum() for character in "".join(words[begin:end])):
            before, after = (" ".join(part) for part in (words[:begin], words[end:]))
            gaps.append(Gap(f"{before} ", f" {after}", (" ".join(words[begin:end]),)))
    if not gaps:
        raise InvalidRequest(f"{request.data!r} has no text of {request.blank + 2} words or more; lower blank.")
    short = (
        f"{len(texts) - len(gaps)} of {len(texts)} texts: under {request.blank + 2} words, or a blank without a word"
    )
    return gaps, [short] if len(gaps) < len(texts) else []


def read_anlg(request: InfillingRequest) -> tuple[list[Gap], list[str]]:
    """Return pairs of observations with the sentences that people wrote between them (1908.05739)."""
    path = Path(request.data)
    if not path.is_file():
        raise InvalidRequest(f"There is no file {request.data!r}. Give aNLG's .json file, which may end in .gz.")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise InvalidRequest(f"{path} is no JSON: {error}.") from error
    if not isinstance(found, dict) or not found:
        raise InvalidRequest(f'{path}: expected an object of {{"obs1", "obs2", "gold_labels"}} by name.')
    return [_observed(one, f"{path}: {name!r}") for name, one in found.items()], [NO_STORIES]


def _observed(one: Any, where: str) -> Gap:
    texts = [one.get("obs1"), one.get("obs2"), *one.get("gold_labels", [])] if isinstance(one, dict) else []
    if len(texts) < 3 or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InvalidRequest(
            f'{where}: expected "obs1", "obs2" and a list "gold_labels" of texts, got {str(one)[:80]}.'
        )
    before, after, *fills = (" ".join(text.split()) for text in texts)
    return Gap(f"{before} ", f" {after}", tuple(fills))


TASKS: dict[str, Callable[[InfillingRequest], tuple[list[Gap], list[str]]]] = {
    "e2e": read_blanked,
    "anlg": read_anlg,
}


def fill(
    pipeline: GuidedPipeline, gaps: Sequence[Gap], request: InfillingRequest, progress: bool = False
) -> Iterator[Filled]:
    """Yield each gap with its texts; compilation of the constraint is in the time."""
    prompt = None if request.prompt is None else as_prompt(request.prompt)
    options = {name: getattr(request, name) for name in SAMPLING}
    for number, gap in enumerate(tqdm(gaps, desc="infilling", unit="gap", disable=not progress)):
        began = time.perf_counter()
        # A seed for each gap, or the first draws of all would be alike.
        seeds = [request.seed + number * request.samples + row for row in range(request.samples)]
        try:
            found = pipeline(prompt, gap.constraint(), num_samples=request.samples, seed=seeds, **options)
        except (Infeasible, AutomatonTooLarge) as error:
            yield Filled(gap, (), refused=type(error).__name__)
            continue
        if found.stopped:
            raise KeyboardInterrupt
        yield Filled(gap, tuple(found.texts), time.perf_counter() - began)


def _add_refusals(card: Card, filled: Sequence[Filled]) -> None:
    refused = Counter(one.refused for one in filled if one.refused is not None)
    card.add(SAMPLES, {"gaps": len(filled), "refused gaps": refused.total()})
    for reason, count in refused.items():
        why = "what is given does not fit the canvas, or the model cannot write it" if reason == "Infeasible" else ""
        card.left_out.append(f"{count} of {len(filled)} gaps, refused: {reason}{why and f', {why}'}")


def _add_figures(card: Card, filled: Sequence[Filled], judge: Judge | None) -> None:
    """Add figures of the gaps that were filled; chance is another gap's own words in each."""
    texts = [(one.gap, text) for one in filled for text in one.texts]
    if not texts:
        return
    fills = [gap.fill_of(text) for gap, text in texts]
    references = [gap.fills for gap, _ in texts]
    kept = [found for found in fills if found is not None]
    card.add(
        SAMPLES,
        {
            "texts": len(texts),
            "texts that keep what was given, share": len(kept) / len(texts),
            "BLEU-4 of the fill": bleu([found or "" for found in fills], references),
            "ROUGE-L of the fill": _mean_rouge([found or "" for found in fills], references),
            "words of the fill, mean": statistics.fmean(len((found or "").split()) for found in fills),
            "seconds per text": sum(one.seconds for one in filled) / len(texts),
        },
    )
    if len(filled) > 1:
        others = [gap.fills[0] for gap in (*(one.gap for one in filled[1:]), filled[0].gap)]
        own = [one.gap.fills for one in filled]
        chance = {"BLEU-4": bleu(others, own), "ROUGE-L": _mean_rouge(others, own)}
        card.add(SAMPLES, {f"{name} of another gap's own words": value for name, value in chance.items()})
    people = [f"{gap.before}{gap.fills[0]}{gap.after}" for gap, _ in texts]
    words = statistics.fmean(len(gap.fills[0].split()) for gap, _ in texts)
    card.add(HELD_OUT, {"texts": len(people), "words of the fill, mean": words})
    _add_judged(card, {SAMPLES: [text for _, text in texts], HELD_OUT: people}, judge)


def _add_judged(card: Card, columns: dict[str, list[str]], judge: Judge | None) -> None:
    if judge is None:
        card.left_out.append("nats per token under a judge: give one (--judge)")
        return
    for column, texts in columns.items():
        try:
            card.add(column, {"judge, nats per token": judge.nll(texts)})
        except InvalidRequest as error:  # texts that are too long for it
            card.left_out.append(f"the judge on {column}: {error}")


def words_of(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, lower case: what BLEU and ROUGE count."""
    return _TOKEN.findall(text.lower())


def bleu(fills: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU-4, 0 to 1, against all references of each fill.

    Counts from bigrams on are smoothed by adding one (NLTK's method 2; Lin and Och, 2004), for fills are short.
    """
    split = [[words_of(reference) for reference in several] for several in references]
    smooth = SmoothingFunction().method2
    return float(corpus_bleu(split, [words_of(one) for one in fills], smoothing_function=smooth))


def _mean_rouge(fills: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return statistics.fmean(
        max(rouge_l(one, reference) for reference in several) for one, several in zip(fills, references, strict=True)
    )


def rouge_l(one: str, other: str) -> float:
    """Return ROUGE-L, the harmonic mean of precision and recall of the longest common subsequence, 0 to 1."""
    left, right = words_of(one), words_of(other)
    row = [0] * (len(right) + 1)  # row[j]: the longest common subsequence with the first j words of `right`
    for word in left:
        above = row
        row = [0]
        for place, beside in enumerate(right):
            row.append(above[place] + 1 if word == beside else max(row[-1], above[place + 1]))
    return 2 * row[-1] / (len(left) + len(right)) if left or right else 0.0
