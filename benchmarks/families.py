"""Every family of diffusion language model on the same texts: quality against steps, free and under constraints.

    python benchmarks/families.py --judge FOLDER [--models NAME ...] [--steps 8 16 ...] [--human FILE] [--name NAME]

One recipe is asked of all models. Judge NLL is that of an autoregressive model of the same texts; acceptance is read by
`--reader`, one masked model for all, so that families can be compared. A masked model stops when its canvas is full, so
more steps than tokens change nothing. `--long` texts are written where there are more than 64 steps.
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import torch
from _report import RESULTS, conditions, publish

from constraints import Blank, Length, PartOfSpeech, Template, Words
from guided_dlm import Constraint, GuidedPipeline
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser, GaussianDenoiser
from guided_dlm.evaluation.coherence import rest_law, self_acceptance, text_positions
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.training.data import read_texts

HEADER = (
    "model", "asked for", "steps", "satisfied %", "judge NLL", "NLL - free", "distinct of all %", "distinct-2",
    "self-BLEU", "acceptance", "denoiser calls", "seconds",
)  # fmt: skip
MODELS = ["restaurant-words", "restaurant-block", "restaurant-uniform", "restaurant-continuous"]
BOTH = "length & words"
WISHES: dict[str, Constraint | None] = {
    "free": None,
    BOTH: Length(words=(12, 25)) & Words(include=["riverside"]),
    "length": Length(words=(12, 20)),
    "words": Words(include=["riverside", "cheap"]),
    "tags": PartOfSpeech("(DET|PROPN)* PROPN AUX DET ADJ* NOUN .*"),
    "template": Template(
        [Blank(words=(1, 4)), " is a ", Blank(words=(1, 3)), " restaurant ", Blank(words=(2, 14)), " ."]
    ),
}


def acceptance(reader: Denoiser, writer: Denoiser, tokens: torch.Tensor) -> float:
    """Self-acceptance as one masked model reads it, whoever wrote."""
    texts = [writer.vocabulary.decode(row) for row in tokens.tolist()]
    vocabulary, length = reader.vocabulary, tokens.shape[1]
    ids = [[*vocabulary.encode(text), vocabulary.eos_id][:length] for text in texts]
    tokens = torch.tensor([row + [vocabulary.pad_id] * (length - len(row)) for row in ids])
    canvas = Canvas.from_prompts([None] * len(ids), vocabulary, length, reader.device)
    where_NL = text_positions(reader, tokens)
    return self_acceptance(rest_law(reader, replace(canvas, tokens_BL=tokens), where_NL), where_NL)


def measure(
    pipeline: GuidedPipeline,
    reader: Denoiser,
    judge: Judge,
    name: str,
    wish: str,
    steps: int,
    samples: int,
    arguments: argparse.Namespace,
) -> list[Any]:
    """One line of the table, without the difference to the free run."""
    began = time.perf_counter()
    particles = 1 if WISHES[wish] is None else arguments.particles
    options: Any = {"particles": particles, "temperature": arguments.temperature}
    out = pipeline(constraint=WISHES[wish], num_samples=samples, steps=steps, seed=0, **options)
    seconds = time.perf_counter() - began
    texts = [text for text in out.texts if text.strip()]
    has = diversity(texts)
    line = [
        name, wish, steps, f"{100 * out.satisfied.double().mean():.0f}", f"{judge.nll(texts):.2f}", "",
        f"{100 * has.texts:.0f}", f"{has.bigrams:.2f}", f"{has.self_bleu:.2f}",
        f"{acceptance(reader, pipeline.denoiser, out.tokens):.3f}", out.denoiser_calls, f"{seconds:.1f}",
    ]  # fmt: skip
    print(line, "|", texts[0][:100], flush=True)
    return line


def draw(name: str, rows: list[list[Any]]) -> None:
    """Save quality against steps: solid where nothing is asked for, dotted under the constraint."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for index, model in enumerate(dict.fromkeys(row[0] for row in rows)):
        for wish, style in (("free", "-"), (BOTH, ":")):
            points = sorted((row[2], float(row[4])) for row in rows if row[:2] == [model, wish])
            axes.plot(*zip(*points, strict=True), style, color=f"C{index}", marker="o", label=f"{model}, {wish}")
    axes.set(xscale="log", xlabel="steps", ylabel="judge NLL, nats per token", title="Quality against steps")
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--reader", default="restaurant-words")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 32, 64, 200, 1000])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--long", type=int, default=8, help="texts where there are more than 64 steps")
    parser.add_argument("--each", type=int, default=64, help="the number of steps at which each constraint is asked")
    parser.add_argument("--wishes", nargs="+", default=list(WISHES), choices=WISHES, help="the free one first")
    parser.add_argument("--particles", type=int, default=1, help="rows that compete for each constrained text")
    parser.add_argument("--temperature", type=float, help="by default each model's own")
    parser.add_argument("--clean", choices=["draw", "mean"], help="Gaussian models: what their steps move towards")
    parser.add_argument("--human", help="held-out text, for the judge's figure of people")
    parser.add_argument("--name", default="families", help="of the files of results")
    arguments = parser.parse_args()
    judge, reader = Judge(arguments.judge), GuidedPipeline.from_pretrained(arguments.reader).denoiser
    rows = []
    for name in arguments.models:
        pipeline = GuidedPipeline.from_pretrained(name)
        if arguments.clean:
            assert isinstance(pipeline.denoiser, GaussianDenoiser)
            pipeline = GuidedPipeline(pipeline.denoiser.stepping(clean=arguments.clean))
        for steps in arguments.steps:
            samples = arguments.samples if steps <= 64 else arguments.long
            wishes = [w for w in arguments.wishes if steps == arguments.each or w in ("free", BOTH)]
            lines = [measure(pipeline, reader, judge, name, wish, steps, samples, arguments) for wish in wishes]
            for line in lines:
                line[5] = f"{float(line[4]) - float(lines[0][4]):+.2f}"
            rows.extend(lines)
    draw(arguments.name, rows)
    settings = conditions(reader=arguments.reader, samples=arguments.samples, samples_beyond_64_steps=arguments.long)
    settings |= {"particles_of_constrained_texts": arguments.particles, "clean": arguments.clean or "as shipped"}
    settings["temperature"] = arguments.temperature or "each model's own"
    if arguments.human:
        people = [text for text in read_texts(arguments.human) if len(text.split()) < 60][:1000]
        settings["human_text_judge_nll"] = f"{judge.nll(people):.2f}"
    publish(arguments.name, "Families of diffusion language model", HEADER, rows, settings)


if __name__ == "__main__":
    main()
