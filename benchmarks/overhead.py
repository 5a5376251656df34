"""What a constraint costs on `restaurant-words`: ratios of interleaved runs in one process, and peak memory.

    python benchmarks/overhead.py [--model NAME] [--rounds 5] [--batch 32] [--steps 32]

A round runs the unguided sampler and every constraint once, in turn; the table shows the median, least and greatest of
the rounds' ratios to the unguided run of the same round. Peak memory is that of a fresh process for each.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _report import conditions, publish

from constraints import Blank, Length, Regex, Template, Words
from guided_dlm import GuidedPipeline

CASES = {
    "unguided": None,
    "length, words (8, 12)": Length(words=(8, 12)),
    "include 1 phrase": Words(include=["riverside"]),
    "exclude 5 words": Words(exclude=["the", "cheap", "pub", "family", "rating"]),
    "template, 2 blanks": Template(["The ", Blank(words=(1, 3)), " is a ", Blank(words=(3, 8)), " ."]),
    "regex, no digits, ends in a stop": Regex(r"[^0-9]*\."),
    "length & 1 phrase & exclude": Length(words=(8, 20)) & Words(include=["riverside"], exclude=["the"]),
    "length & 2 phrases": Length(words=(10, 24)) & Words(include=["riverside", "family - friendly"]),
    "length & 3 phrases": Length(words=(10, 20)) & Words(include=["pub", "cheap", "Italian"]),
}


def run(pipeline: GuidedPipeline, name: str, batch: int, steps: int) -> float:
    began = time.perf_counter()
    out = pipeline(constraint=CASES[name], num_samples=batch, steps=steps, seed=1)
    if not bool(out.satisfied.all()):
        sys.exit(f"{name}: not every sample satisfies the constraint.")
    return time.perf_counter() - began


def high_water() -> int:
    """Peak resident KiB of this process; `getrusage` would count the parent it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def peak(model: str, name: str, batch: int, steps: int) -> float:
    """Peak resident memory in MiB of a fresh process that runs one case."""
    command = [sys.executable, __file__, "--model", model, "--batch", str(batch), "--steps", str(steps), "--only", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    pipeline = GuidedPipeline.from_pretrained(arguments.model)
    size = (arguments.batch, arguments.steps)
    if arguments.only:
        run(pipeline, arguments.only, *size)
        print(high_water())
        return
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for name in CASES:  # warm-up: compiles and caches
        run(pipeline, name, *size)
    for _ in range(arguments.rounds):
        for name in CASES:
            seconds[name].append(run(pipeline, name, *size))
    context = pipeline.context(pipeline.denoiser.capacity or 64)
    plain = seconds["unguided"]
    base = peak(arguments.model, "unguided", *size)
    rows = []
    for name, constraint in CASES.items():
        automaton = constraint.compile(context).automaton if constraint else None
        ratios = sorted(own / other for own, other in zip(seconds[name], plain, strict=True))
        rows.append(
            (
                name,
                automaton.num_states if automaton else "",
                len(automaton.arcs().source) if automaton else "",
                f"{statistics.median(seconds[name]):.2f}",
                f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
                f"{peak(arguments.model, name, *size) / base:.3f}",
            )
        )
    header = ("constraint", "states", "arcs", "seconds (median)", "time / unguided (range)", "peak memory / unguided")
    settings = conditions(model=arguments.model, batch=arguments.batch, steps=arguments.steps, rounds=arguments.rounds)
    publish("overhead", "Overhead of a constraint", header, rows, settings)


if __name__ == "__main__":
    main()
