"""What bfloat16, unread padding and a short last layer save on `restaurant-words`: ratios of interleaved runs.

    python benchmarks/speed.py --judge FOLDER [--rounds 3] [--batch 50] [--numbers float32 bfloat16]

A round runs every case once, each round in another order; the table shows the median of the rounds' ratios to numbers
of the first kind that read all padding, in the same round. "open" computes the last layer and the logits at open
positions only, where nothing looks at the others; it is the default, with little padding. The judge, of the recipe
restaurant-judge, reads the texts of all rounds, which have different seeds. What the sampler itself saves, on full rows
and in drawing, is in every case.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from _measure import timed
from _report import conditions, publish
from torch import Tensor

from constraints import Length, PartOfSpeech
from guided_dlm import Constraint, GuidedPipeline, Output
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.evaluation.fluency import Judge

CORRECTOR = "p2+cool-gibbs+distinct"
SETTINGS: dict[str, tuple[Constraint | None, dict[str, Any]]] = {
    "free, 32 steps": (None, {"steps": 32, "corrector": "none"}),
    f"free, 64 steps, {CORRECTOR}": (None, {"steps": 64, "corrector": CORRECTOR}),
    "length, 32 steps": (Length(words=(8, 12)), {"steps": 32, "corrector": "none"}),
    "tags, 32 steps": (PartOfSpeech(".* VERB DET ADJ NOUN .*", tolerance=1e-5), {"steps": 32, "corrector": "none"}),
}
READ = {"all": True, "little": False, "little, open": False}  # whether padding is read


@dataclass
class Case:
    """One way to compute, and what its runs took and wrote."""

    pipeline: GuidedPipeline
    seconds: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def run(self, wish: Constraint | None, **options: Any) -> None:
        found: list[Output] = []
        self.seconds.append(timed(lambda: found.append(self.pipeline(constraint=wish, **options))))
        self.texts += found[0].texts


class EveryPosition(TransformerDenoiser):
    """Computes the logits of written positions too."""

    def at_open(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        return self(canvas, t, carry)


def pipelines(model: str, numbers: Sequence[str]) -> dict[tuple[str, str], GuidedPipeline]:
    """The model in each kind of numbers, reading all padding or little, all positions or open ones."""
    found = {}
    for dtype in numbers:
        for said, reads_tail in READ.items():
            pipeline = GuidedPipeline.from_pretrained(model, dtype=dtype)
            denoiser = pipeline.denoiser
            assert isinstance(denoiser, TransformerDenoiser)
            denoiser.model.config.reads_tail = reads_tail
            if not said.endswith("open"):
                pipeline = GuidedPipeline(EveryPosition(denoiser.model, denoiser.vocabulary))
            found[dtype, said] = pipeline
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--judge", required=True, help="a folder with an autoregressive model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--numbers", nargs="+", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    judge, computed, rows = Judge(arguments.judge), pipelines(arguments.model, arguments.numbers), []
    for name, (wish, options) in SETTINGS.items():
        cases = {key: Case(pipeline) for key, pipeline in computed.items()}
        for case in cases.values():  # warm-up: compiles and caches
            case.pipeline(constraint=wish, num_samples=2, seed=0, **options)
        for seed in range(arguments.rounds):
            order = list(cases.values())
            for case in order[seed % len(order) :] + order[: seed % len(order)]:
                case.run(wish, num_samples=arguments.batch, seed=seed, **options)
        first = cases[arguments.numbers[0], "all"].seconds
        for (dtype, said), case in cases.items():
            ratios = [own / other for own, other in zip(case.seconds, first, strict=True)]
            rows.append(
                (
                    name,
                    dtype,
                    said,
                    f"{statistics.median(case.seconds):.1f}",
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    f"{judge.nll([text for text in case.texts if text]):.2f}",
                )
            )
    header = ("setting", "numbers", "read", "seconds", f"time / {arguments.numbers[0]}, all read", "judge NLL")
    settings = conditions(model=arguments.model, batch=arguments.batch, rounds=arguments.rounds)
    publish("speed", "Numbers and padding on a processor", header, rows, settings)


if __name__ == "__main__":
    main()
