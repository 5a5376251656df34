"""Exact inference beside a forward pass: one constrained step by states, classes, vocabulary, canvas and batch.

    python benchmarks/structure.py --text FILE... [--rounds 5] [--quick | --memory]

A step builds the posterior, ranks all positions by confidence, and draws one canvas of which a thirty-second part is
written, as the default sampler does in 32 steps. The denoiser is the project's transformer with random weights, 12
layers of width 768; forward pass and step are run in turn in one process, and the ratio is that of the same round. Peak
memory of a step is what torch allocates during it.
"""

import argparse
import statistics
import time

import torch
from _measure import peak, timed
from _report import conditions, publish
from _vocabulary import add_arguments, bpe_vocabulary

from guided_dlm import Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.posterior import Posterior

FIELDS = ["name", "kind", "food", "price", "rating", "area", "near", "phone", "street", "city", "email", "website"]
SHAPES = [  # fields of the record, vocabulary, canvas, batch
    (2, 32768, 256, 8),
    (8, 32768, 256, 8),
    (16, 32768, 256, 8),
    (32, 32768, 256, 8),
    (64, 32768, 256, 8),
    (32, 32768, 256, 1),
    (32, 32768, 1024, 1),
    (32, 126464, 256, 1),
]


def record(fields: int) -> ByteAutomaton:
    """A JSON object of that many optional string fields, in order, white space free."""
    text = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
    names = [f"{FIELDS[i % len(FIELDS)]}{i // len(FIELDS) or ''}" for i in range(fields)]
    members = rf'"{names[0]}"\s*:\s*{text}' + "".join(rf'(?:\s*,\s*"{name}"\s*:\s*{text})?' for name in names[1:])
    return ByteAutomaton.from_regex(rf"(?a:\{{\s*{members}\s*\}})")


def denoiser(size: int, canvas: int) -> DiffusionTransformer:
    config = DiffusionTransformerConfig(
        vocab_size=size, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048,
        max_position_embeddings=canvas, mask_token_id=0,
    )  # fmt: skip
    return DiffusionTransformer(config).eval()


def step(logits: torch.Tensor, automaton: TokenAutomaton) -> torch.Tensor:
    law = Posterior(logits, automaton)
    chosen = law.confidence().argsort(-1, descending=True) < logits.shape[1] // 32
    uniform = torch.rand(2, *logits.shape[:2], dtype=torch.float64)
    return law.draw(uniform[0], uniform[1], chosen)


def measure(shape: tuple[int, int, int, int], vocabulary: Vocabulary, dtype: torch.dtype, rounds: int) -> tuple:
    fields, size, canvas, batch = shape
    began = time.perf_counter()
    automaton = record(fields).lift(vocabulary)
    compiled = time.perf_counter() - began
    torch.manual_seed(0)
    model, tokens = denoiser(size, canvas).to(dtype), torch.randint(0, size, (batch, canvas))
    logits = 3 * torch.randn(batch, canvas, size)
    forwards, steps = [], []
    with torch.inference_mode():
        if not all(automaton.accepts(row) for row in Posterior(logits, automaton).sample().tolist()):
            raise SystemExit("A draw is not in the automaton.")
        timed(lambda: model(input_ids=tokens))
        for _ in range(rounds):
            forwards.append(timed(lambda: model(input_ids=tokens)))
            steps.append(timed(lambda: step(logits, automaton)))
        memory = peak(lambda: step(logits, automaton))
    ratios = sorted(own / other for own, other in zip(steps, forwards, strict=True))
    return (
        automaton.num_states,
        automaton.num_classes,
        len(automaton.arcs().source),
        size,
        canvas,
        batch,
        str(dtype).removeprefix("torch."),
        f"{compiled:.2f}",
        f"{statistics.median(forwards) * 1e3:.0f}",
        f"{statistics.median(steps) * 1e3:.0f}",
        f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        f"{memory:.0f}",
        f"{logits.numel() * 4 / 2**20:.0f}",
    )


def memory(texts: list[str]) -> None:
    """The peak of one step by states, canvas and vocabulary, batch 1, without a denoiser."""
    rows = []
    for fields, size, canvas in [
        (2, 32768, 256),
        (16, 32768, 256),
        (64, 32768, 256),
        (64, 32768, 512),
        (64, 126464, 256),
    ]:
        automaton = record(fields).lift(bpe_vocabulary(texts, size))
        logits = 3 * torch.randn(1, canvas, size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            held = peak(lambda logits=logits, automaton=automaton: step(logits, automaton))
        own = canvas * (automaton.num_states + automaton.num_classes) * 8 / 2**20
        dense = automaton.num_states * size * 4 / 2**20
        sizes = (automaton.num_states, automaton.num_classes, size, canvas)
        rows.append((*sizes, f"{held:.0f}", f"{logits.numel() * 4 / 2**20:.0f}", f"{own:.1f}", f"{dense:.0f}"))
        print(rows[-1], flush=True)
    header = (
        "states",
        "classes",
        "vocabulary",
        "canvas",
        "peak, MiB",
        "logits, MiB",
        "L (S + C) doubles, MiB",
        "S x V int32, MiB",
    )
    publish("structure_memory", "Memory of one step of exact inference", header, rows, conditions(batch=1, seed=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="only the shape that the target names")
    parser.add_argument("--memory", action="store_true", help="only the memory of a step, without a denoiser")
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.text)
        return
    rows = []
    for shape in SHAPES[3:4] if arguments.quick else SHAPES:
        vocabulary = bpe_vocabulary(arguments.text, shape[1])
        for dtype in (torch.float32, torch.bfloat16):
            rows.append(measure(shape, vocabulary, dtype, arguments.rounds))
            print(rows[-1], flush=True)
    header = (
        "states", "classes", "arcs", "vocabulary", "canvas", "batch", "denoiser", "compile, s", "forward, ms",
        "step, ms", "step / forward (range)", "peak of a step, MiB", "logits, MiB",
    )  # fmt: skip
    publish("structure", "One step of exact inference", header, rows, conditions(rounds=arguments.rounds, seed=0))


if __name__ == "__main__":
    main()
