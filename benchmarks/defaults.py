"""What a model should do where nobody says: quality against denoiser calls, over a grid of sampling settings.

    python benchmarks/defaults.py --model restaurant-uniform --judge FOLDER --human FILE --train FILE
        [--steps 32 64 128] [--temperature 0.7 1.0] [--top_p 0.9 1.0] [--sampler ...] [--corrector none gibbs ...]
        [--clean draw mean] [--block_length 0 8 ...]
    python benchmarks/defaults.py --model restaurant-json --prompts record ...
    python benchmarks/defaults.py --model topics-en --prompts label [--guidance_scale 1 2] ...

Each cell writes `--samples` texts without a constraint; with `--prompts` for the records or the labels of the held-out
file, and "as asked" is the share of the records' values that the texts mention, or of texts that a classifier of
sentence vectors, fitted to the held-out texts, calls by their label. Human figures, of held-out and of training text,
are of as many texts, but the judge's, which are of a thousand. A good default is near the human line in both panels:
low temperature alone buys NLL with diversity and length. The error of a cell's NLL is over eight parts of its texts. A
finished cell is kept and not run again, unless weights, judge, prompts or the number of samples are other ones.
"""

import argparse
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from _judges import SentenceJudge
from _report import RESULTS, conditions, publish

from guided_dlm import GuidedPipeline
from guided_dlm.denoisers import GaussianDenoiser
from guided_dlm.evaluation.copying import copying, duplicates
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.evaluation.model import spread
from guided_dlm.evaluation.records import mentioned_share
from guided_dlm.models import locate
from guided_dlm.training.data import read_lines, read_texts
from guided_dlm.training.pairs import as_prompt, record_text

SETTINGS = ("steps", "temperature", "top_p", "sampler", "corrector", "clean", "guidance_scale", "block_length")
HEADER = (
    *SETTINGS, "as asked %", "judge NLL", "+-", "NLL - human", "words mean", "words sd", "duplicates %", "distinct-2",
    "self-BLEU", "copied run", "verbatim %", "denoiser calls", "seconds",
)  # fmt: skip
NLL = HEADER.index("judge NLL")
OLDER = {"guidance_scale": 1.0, "block_length": 0, "as asked %": ""}  # of tables that lack these columns
SHIPPED = "as shipped"
PARTS = 8


@dataclass(frozen=True)
class Wish:
    """Prompts of the texts (None: none), how many of them do what their prompt asks, and how many of people's do."""

    prompts: list[str] | None = None
    met: Callable[[list[str]], str] = lambda texts: ""
    people: str = ""


def read_wish(arguments: argparse.Namespace) -> Wish:
    """What texts are asked for."""
    if arguments.prompts is None:
        return Wish()
    lines = [line for line, _ in read_lines(arguments.human)]
    if arguments.prompts == "record":
        lines = spread(lines, arguments.samples)
        records = [line["record"] for line in lines]

        def met(texts: list[str]) -> str:
            return f"{100 * mentioned_share(texts, records):.1f}"

        return Wish([as_prompt(record_text(one)) for one in records], met, met([line["text"] for line in lines]))
    kinds = sorted({line["label"] for line in lines})
    labels = [kinds[i % len(kinds)] for i in range(arguments.samples)]
    judge = SentenceJudge([line["text"] for line in lines], [line["label"] for line in lines])

    def called(texts: list[str]) -> str:
        found = judge.predict(texts)
        return f"{100 * statistics.fmean(one == label for one, label in zip(found, labels, strict=True)):.1f}"

    return Wish([as_prompt(label) for label in labels], called)


def figures(texts: list[str], judge: Judge, training: list[str], human_nll: float) -> list[Any]:
    """What the table says of texts, from the judge to copying."""
    written = [text for text in texts if text.strip()]
    words = [len(text.split()) for text in texts]
    varied, copied, nll = diversity(texts), copying(texts, training), judge.nll(written)
    parts = [judge.nll(written[i::PARTS]) for i in range(min(PARTS, len(written)))]
    error = statistics.stdev(parts) / len(parts) ** 0.5 if len(parts) > 1 else float("nan")
    return [
        f"{nll:.2f}", f"{error:.2f}", f"{nll - human_nll:+.2f}", f"{statistics.mean(words):.1f}",
        f"{statistics.pstdev(words):.1f}", f"{100 * duplicates(texts):.0f}", f"{varied.bigrams:.3f}",
        f"{varied.self_bleu:.3f}", f"{copied.mean_run:.1f}", f"{100 * copied.verbatim:.0f}",
    ]  # fmt: skip


def people_rows(texts: dict[str, list[str]], samples: int, judge: Judge, asked: str) -> list[list[Any]]:
    """A row of held-out and one of training text: the judge's figure of a thousand texts, the others of `samples`."""
    rows, human_nll = [], None
    for name, found in texts.items():
        fit = [text for text in found if len(text.split()) < 60]
        nll = judge.nll(spread(fit, 1000))
        human_nll = nll if human_nll is None else human_nll
        met = asked if name == "human" else ""
        row = [
            name,
            *[""] * (len(SETTINGS) - 1),
            met,
            *figures(spread(fit, samples), judge, texts["training"], nll),
            "",
            "",
        ]
        row[NLL : NLL + 3] = [f"{nll:.2f}", "", f"{nll - human_nll:+.2f}"]
        if name == "training":
            row[HEADER.index("copied run")] = row[HEADER.index("verbatim %")] = ""
        rows.append(row)
    return rows


def write(pipeline: GuidedPipeline, cell: dict[str, Any], wish: Wish, samples: int) -> tuple[list[str], int, float]:
    """The texts of a cell, the denoiser's calls and the seconds."""
    if cell["clean"] != SHIPPED:
        if not isinstance(pipeline.denoiser, GaussianDenoiser):
            raise SystemExit("--clean is for models of Gaussian noise; leave it out.")
        pipeline = GuidedPipeline(pipeline.denoiser.stepping(clean=cell["clean"]))
    began = time.perf_counter()
    options = {name: value for name, value in cell.items() if name != "clean"}
    options["block_length"] = options["block_length"] or None
    if wish.prompts is None:
        out = pipeline(num_samples=samples, seed=0, **options)
    else:
        out = pipeline(wish.prompts, seed=0, **options)
    return out.texts, out.denoiser_calls, time.perf_counter() - began


def kept_rows(name: str, settings: dict[str, Any]) -> list[list[Any]]:
    """Rows of an earlier run under the same settings, without those of people."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.is_file() else {"conditions": {}, "rows": []}
    if any({"prompts": "none", **found["conditions"]}.get(key) != value for key, value in settings.items()):
        return []
    return [[{**OLDER, **row}[key] for key in HEADER] for row in found["rows"] if isinstance(row["steps"], int)]


def draw(name: str, model: str, rows: list[list[Any]], people: list[list[Any]]) -> None:
    """Save the gap to human NLL and distinct-2 against denoiser calls, a line for each setting but the steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    varied = [i for i in range(1, len(SETTINGS)) if len({row[i] for row in rows}) > 1]
    lines = list(dict.fromkeys(tuple(row[1 : len(SETTINGS)]) for row in rows))
    for axes, column in ((left, "NLL - human"), (right, "distinct-2")):
        for line in sorted(lines, key=str):
            mine = [row for row in rows if tuple(row[1 : len(SETTINGS)]) == line]
            points = sorted((row[HEADER.index("denoiser calls")], float(row[HEADER.index(column)])) for row in mine)
            label = ", ".join(f"{SETTINGS[i]} {line[i - 1]}" for i in varied) or f"temperature {line[0]}"
            axes.plot(*zip(*points, strict=True), "o-", label=label)
        for row, style in zip(people, (":", "--"), strict=True):
            text = "held-out text" if row[0] == "human" else "training text"
            axes.axhline(float(row[HEADER.index(column)]), color="black", linestyle=style, label=text)
        axes.set(xscale="log", xlabel="denoiser calls")
        calls = sorted({row[HEADER.index("denoiser calls")] for row in rows})
        axes.set_xticks(calls, [str(count) for count in calls])
        axes.minorticks_off()
    left.set(ylabel="judge NLL minus human, nats per token", title=f"{model}: fluency")
    right.set(ylabel="distinct-2", title="diversity")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)
    plt.close(figure)


def grid(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The cells, cheap ones first."""
    axes = [getattr(arguments, name) for name in SETTINGS]
    return sorted((dict(zip(SETTINGS, values, strict=True)) for values in itertools.product(*axes)), key=_steps)


def _steps(cell: dict[str, Any]) -> int:
    return int(cell["steps"])


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--judge", required=True, help="a folder with an autoregressive model of the same texts")
    parser.add_argument("--human", required=True, help="held-out texts")
    parser.add_argument("--train", required=True, help="the texts that the model was trained on, for copying")
    parser.add_argument("--steps", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--top_p", type=float, nargs="+", default=[1.0])
    parser.add_argument("--sampler", nargs="+", default=["confidence"])
    parser.add_argument("--corrector", nargs="+", default=["none"], help="none, gibbs, remdm-cap, ...")
    parser.add_argument("--clean", nargs="+", default=[SHIPPED], choices=[SHIPPED, "draw", "mean"])
    parser.add_argument("--guidance_scale", type=float, nargs="+", default=[1.0])
    parser.add_argument("--block_length", type=int, nargs="+", default=[0], help="0: the whole canvas")
    parser.add_argument("--prompts", choices=["record", "label"])
    parser.add_argument("--samples", type=int, default=64)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    model, name = Path(arguments.model).name, f"defaults_{Path(arguments.model).name}"
    judge, pipeline = Judge(arguments.judge), GuidedPipeline.from_pretrained(arguments.model)
    weights = (Path(locate(arguments.model)) / "model.safetensors").read_bytes()
    settings = {
        "model": model, "weights": hashlib.sha256(weights).hexdigest()[:12], "judge": Path(arguments.judge).name,
        "samples": arguments.samples, "seed": 0, "prompts": arguments.prompts or "none",
    }  # fmt: skip
    training, wish = read_texts(arguments.train), read_wish(arguments)
    texts = {"human": read_texts(arguments.human), "training": training}
    people = people_rows(texts, arguments.samples, judge, wish.people)
    human_nll = float(people[0][NLL])
    rows = kept_rows(name, settings)
    for cell in grid(arguments):
        if any(row[: len(SETTINGS)] == list(cell.values()) for row in rows):
            continue
        written, calls, seconds = write(pipeline, cell, wish, arguments.samples)
        found = [wish.met(written), *figures(written, judge, training, human_nll)]
        rows.append([*cell.values(), *found, calls, round(seconds, 1)])
        rows.sort(key=lambda row: (row[0], str(row[1 : len(SETTINGS)])))
        draw(name, model, rows, people)
        publish(name, f"Sampling defaults of {model}", HEADER, [*rows, *people], conditions(**settings))
        print(written[0][:120], flush=True)


if __name__ == "__main__":
    main()
