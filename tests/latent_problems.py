"""Named priors small enough to enumerate, and wishes about them, for latent guidance."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from oracles import CPU, accepted, canvas_of, canvases, end_states
from torch import Tensor

from guided_dlm import Guide, Vocabulary
from guided_dlm.automata import ByteAutomaton, WeightedAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.processes import GaussianProcess, Transition
from guided_dlm.processes.schedules import sqrt
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.samplers import LatentGuidance, Plan, Snapshot, run, sample
from guided_dlm.samplers.commit import Ancestral
from guided_dlm.samplers.latent import latents_of, log_evidence

SIZE, LENGTH, ROWS, STEPS = 3, 3, 20_000, 100
VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"c"], eos_id=None)
EMBEDDINGS = torch.tensor([[1.5, 0.0], [-0.8, 1.2], [-0.6, -1.1]], dtype=torch.float64)
EVERY = canvases(SIZE, LENGTH)


def joint_of(mass_N: Tensor) -> Tensor:
    return (mass_N.double() / mass_N.sum()).reshape([SIZE] * LENGTH)


def independent() -> Tensor:
    factors = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]], dtype=torch.float64)
    return joint_of(factors[torch.arange(LENGTH), EVERY].prod(1))


def copy() -> Tensor:
    return joint_of((EVERY[:, :1] == EVERY).all(1) + 0.02)


def parity() -> Tensor:
    return joint_of(torch.where(EVERY.sum(1) % 2 == 0, 1.0, 0.05))


def markov() -> Tensor:
    first = torch.tensor([0.5, 0.3, 0.2])
    then = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]])
    return joint_of(first[EVERY[:, 0]] * then[EVERY[:, 0], EVERY[:, 1]] * then[EVERY[:, 1], EVERY[:, 2]])


def skewed() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return joint_of((1.5 * torch.randn(SIZE**LENGTH, generator=generator, dtype=torch.float64)).exp())


PRIORS = {f.__name__: f() for f in (independent, copy, parity, markov, skewed)}
SUM_3 = "|".join("".join("abc"[i] for i in canvas) for canvas in EVERY.tolist() if sum(canvas) == 3)
WISHES = {
    "contains": ByteAutomaton.from_regex("[abc]*a[abc]*").lift(VOCABULARY),
    "sum": ByteAutomaton.from_regex(SUM_3).lift(VOCABULARY),
    "weighted": WeightedAutomaton(
        [(ByteAutomaton.from_regex("[abc]*c"), 2.0), (ByteAutomaton.from_regex("[abc]*ab[abc]*"), 1.0)]
    ).lift(VOCABULARY),
}
WEIGHT_V = torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)
# About one position and linear in the law of x0, so the energy of expected tokens is -log E[weight | x_t] itself.
FIRST_TOKEN = Guide(energy=lambda relaxed_BLV, step: -(relaxed_BLV[:, 0] @ WEIGHT_V).log())


class FactorsOnly(TabularDenoiser):
    """A model that knows its marginals at x_t, as a net does, and no joint law."""

    def log_evidence(self, *args: Any, **options: Any) -> None:  # type: ignore[override]
        return None


def posterior(prior: str, wish: str) -> Tensor:
    """The law given the wish, by enumeration."""
    automaton = WISHES[wish]
    weight = accepted(automaton, LENGTH).double()
    if automaton.log_weight is not None:
        weight = torch.tensor(automaton.log_weight)[end_states(automaton, automaton.start, LENGTH)].exp()
    law = PRIORS[prior].flatten() * weight
    return law / law.sum()


def tabular(prior: str, adapter: type[TabularDenoiser] = TabularDenoiser, **options: Any) -> TabularDenoiser:
    return adapter(PRIORS[prior], VOCABULARY, GaussianProcess(embeddings_VD=EMBEDDINGS, **options))


def plan_of(
    denoiser: TabularDenoiser,
    automata: Any,
    guidance: LatentGuidance | None,
    rows: int | list[int] = 4,
    steps: int = STEPS,
    guide: Guide | None = None,
    **options: Any,
) -> Plan:
    count = rows if isinstance(rows, int) else len(rows)
    return Plan(
        denoiser=denoiser,
        guide=guide or Guide(),
        automata=automata,
        rule=Ancestral(),
        randomness=Randomness(row_seeds(0 if isinstance(rows, int) else rows, count, CPU)),
        steps=steps,
        latent_guidance=guidance,
        **options,
    )


def blank(rows: int) -> Canvas:
    return Canvas.from_prompts([None] * rows, VOCABULARY, LENGTH, CPU)


def drawn(plan: Plan) -> Tensor:
    return sample(plan, blank(len(plan.randomness.seeds_B)))


def latents(plan: Plan) -> list[Tensor]:
    """The latents after every step."""
    with torch.no_grad():
        return [latents_of(snapshot.after) for snapshot in run(plan, blank(len(plan.randomness.seeds_B)))]


def first_step(plan: Plan) -> Snapshot:
    with torch.no_grad():
        return next(iter(run(plan, blank(len(plan.randomness.seeds_B)))))


def unguided(plan: Plan) -> Plan:
    return replace(plan, latent_guidance=None, automata=None)


def entropy(law_N: Any) -> float:
    p = np.asarray(law_N, dtype=np.float64) / float(law_N.sum())
    return -float((p[p > 0] * np.log(p[p > 0])).sum())


def noise_of(law_N: Tensor, rows: int) -> float:
    """The distance that so many exact draws keep from their own law, on average."""
    return 0.5 * float((2 * law_N * (1 - law_N) / (math.pi * rows)).sqrt().sum())


def begun(denoiser: TabularDenoiser, rows: int = 3) -> Canvas:
    canvas = canvas_of(torch.zeros(rows, LENGTH, dtype=torch.int64), VOCABULARY)
    return denoiser.process.start(canvas, Randomness(row_seeds(1, rows, CPU)))


def step_at(t: float, schedule: Any = sqrt) -> Transition:
    return Transition(index=3, total=8, t=t, s=t - 0.1, alpha_t=schedule(t), alpha_s=schedule(t - 0.1))


def slope(plan: Plan, canvas: Canvas, at: Transition) -> Tensor:
    """The gradient of log p(y | x_t) in the latents."""
    leaf = latents_of(canvas).clone().requires_grad_()
    looked = replace(canvas, latents_BLD=leaf)
    logits_BLV, _ = plan.denoiser.differentiable(looked, at.t)
    return torch.autograd.grad(log_evidence(plan, looked, at, logits_BLV).sum(), leaf)[0]


BIAS = Guide(bias=lambda step: torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64))
BOTH = replace(FIRST_TOKEN, bias=BIAS.bias)
