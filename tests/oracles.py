"""Laws by enumeration, written from the definitions and sharing no code with the engine; and the two statistics."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from guided_dlm import Guide, RegularConstraint, Vocabulary
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.samplers import CommitRule, Plan, sample

CPU = torch.device("cpu")


@dataclass(frozen=True, repr=False)
class Pattern(RegularConstraint):
    """A regex, so that these tests need no built-in constraint."""

    pattern: str

    def to_automaton(self) -> ByteAutomaton:
        return ByteAutomaton.from_regex(self.pattern)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        import re

        return re.fullmatch(self.pattern, text) is not None

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"


def canvases(size: int, length: int) -> Tensor:
    """Every canvas, int64 `[V ** L, L]`, in the order of a flattened joint `[V] * L`."""
    return torch.tensor(list(itertools.product(range(size), repeat=length)))


def accepted(automaton: TokenAutomaton, length: int) -> Tensor:
    """Which of all canvases the automaton accepts, bool `[V ** L]`."""
    every = canvases(len(automaton.vocabulary), length).tolist()
    return torch.tensor([automaton.accepts(canvas) for canvas in every])


def end_states(automaton: TokenAutomaton, start: int, length: int) -> Tensor:
    """The state after each canvas, -1 where the automaton has died, int64 `[V ** L]`."""
    ends = []
    for canvas in canvases(len(automaton.vocabulary), length).tolist():
        state = start
        for token in canvas:
            column = int(automaton.token_class[token])
            state = -1 if column < 0 or state < 0 else int(automaton.transitions[state, column])
        ends.append(state)
    return torch.tensor(ends)


def product_law(factors_LV: Tensor, weight_N: Tensor) -> Tensor:
    """The law proportional to prod_l factors[l, x_l] * weight[x], `[V ** L]`."""
    length, size = factors_LV.shape
    mass = factors_LV[torch.arange(length), canvases(size, length)].prod(1) * weight_N
    return mass / mass.sum()


def marginals_of(law_N: Tensor, size: int) -> Tensor:
    """Marginals `[L, V]` of a law over all canvases."""
    length = round(np.log(len(law_N)) / np.log(size))
    onehot_NLV = torch.nn.functional.one_hot(canvases(size, length), size).double()
    return torch.einsum("n,nlv->lv", law_N, onehot_NLV)


def counts(tokens_BL: Tensor, size: int) -> np.ndarray:
    """How often each canvas occurs, `[V ** L]`."""
    index = torch.zeros(len(tokens_BL), dtype=torch.int64)
    for column in tokens_BL.T:
        index = index * size + column
    return np.bincount(index.numpy(), minlength=size ** tokens_BL.shape[1])


def chi_square(observed_N: np.ndarray, law_N: Tensor) -> float:
    """The p-value of the counts under the law; cells that expect fewer than 5 are merged, impossible ones must be 0."""
    law = law_N.numpy() / float(law_N.sum())
    if observed_N[law == 0].any():
        return 0.0
    expected = law * observed_N.sum()
    small = expected < 5
    seen, wanted = observed_N[~small], expected[~small]
    if expected[small].sum() > 0:
        seen, wanted = np.append(seen, observed_N[small].sum()), np.append(wanted, expected[small].sum())
    return float(stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue)


def tv(observed_N: np.ndarray, law_N: Tensor) -> float:
    """Total variation distance between two laws, or counts and a law."""
    return 0.5 * float(np.abs(observed_N / observed_N.sum() - law_N.numpy() / float(law_N.sum())).sum())


def random_joint(
    size: int, length: int, seed: int, sharpness: float = 2.0, text: Sequence[int] | None = None
) -> Tensor:
    """A correlated joint `[V] * L` with full support on the given tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn([size] * length, generator=generator, dtype=torch.float64)
    mass = logits.exp()
    if text is not None:
        alive_V = torch.zeros(size, dtype=torch.bool)
        alive_V[list(text)] = True
        mass = mass * alive_V[canvases(size, length)].all(1).reshape(mass.shape)
    return mass / mass.sum()


def product_joint(size: int, length: int, seed: int) -> Tensor:
    """A joint of independent positions, for which factors times automaton is exact at every step."""
    generator = torch.Generator().manual_seed(seed)
    factors_LV = torch.randn(length, size, generator=generator, dtype=torch.float64).softmax(-1)
    return product_law(factors_LV, torch.ones(size**length)).reshape([size] * length)


def canvas_of(tokens_BL: Tensor, vocabulary: Vocabulary) -> Canvas:
    """A canvas that stands at these tokens."""
    empty = Canvas.from_prompts([None] * len(tokens_BL), vocabulary, tokens_BL.shape[1], CPU)
    return replace(empty, tokens_BL=tokens_BL)


def draw_many(
    denoiser: Denoiser,
    rule: CommitRule,
    steps: int,
    rows: int,
    automaton: TokenAutomaton | None = None,
    seed: int = 0,
    length: int | None = None,
) -> Tensor:
    """Draw canvases `[rows, L]` through the real loop."""
    plan = Plan(
        denoiser=denoiser,
        guide=Guide(),
        automata=automaton,
        rule=rule,
        randomness=Randomness(row_seeds(seed, rows, CPU)),
        steps=steps,
    )
    width = length if length is not None else denoiser.capacity
    assert width is not None
    return sample(plan, Canvas.from_prompts([None] * rows, denoiser.vocabulary, width, CPU))


Pick = Callable[[Tensor, list[int], float, bool], list[tuple[tuple[int, ...], float]]]


def masked_law(
    joint: Tensor, mask: int, weight_N: Tensor, steps: int, schedule: Callable[[float], float], pick: Pick
) -> Tensor:
    """The exact law of a masked sampler, by following every canvas through every step.

    `pick(marginals [L, V], open positions, share, last)` returns the sets that the rule may write, with probabilities.
    """
    size, length = joint.shape[0], joint.dim()
    every = canvases(size, length)
    laws: dict[tuple[int, ...], float] = {(mask,) * length: 1.0}
    for index in range(steps):
        alpha_t, alpha_s = schedule(1 - index / steps), schedule(1 - (index + 1) / steps)
        last = index == steps - 1
        share = 1.0 if last else (alpha_s - alpha_t) / (1 - alpha_t)
        after: dict[tuple[int, ...], float] = {}
        for canvas, probability in laws.items():
            hidden = [i for i, token in enumerate(canvas) if token == mask]
            if not hidden:
                after[canvas] = after.get(canvas, 0.0) + probability
                continue
            now = torch.tensor(canvas)
            possible_N = ((now == mask) | (every == now)).all(1)
            factors_LV = marginals_of(joint.flatten() * possible_N / (joint.flatten() * possible_N).sum(), size)
            law_N = product_law(factors_LV, weight_N)
            for chosen, chance in pick(marginals_of(law_N, size), hidden, share, last):
                for end, mass in zip(every[law_N > 0].tolist(), law_N[law_N > 0].tolist(), strict=True):
                    new = tuple(end[i] if i in chosen else token for i, token in enumerate(canvas))
                    after[new] = after.get(new, 0.0) + probability * chance * mass
        laws = after
    result = torch.zeros([size] * length, dtype=torch.float64)
    for canvas, probability in laws.items():
        result[canvas] += probability
    return result.flatten()
