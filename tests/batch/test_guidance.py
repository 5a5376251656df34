"""Soft guides: their strength, their limits, and what truncation may never do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Pattern, accepted, chi_square, counts, marginals_of, product_law, random_joint
from torch import Tensor

from guided_dlm import CompileContext, Constraint, Guide, GuidedPipeline, Step, Vocabulary
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.guidance import MAX_SHIFT, Truncation, floor, shift

PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3)
JOINT = random_joint(4, 3, seed=1, text=[0, 1, 2])


def step_at(tokens_BL: Tensor, index: int = 0, total: int = 4) -> Step:
    return Step(index=index, total=total, time=1 - index / total, tokens_BL=tokens_BL)


@dataclass(frozen=True)
class Bend(Constraint):
    """An energy that is linear in the relaxed tokens, so that its pull is known."""

    slope: float
    token: int = 0
    calls: list[Tensor] = field(default_factory=list, compare=False, hash=False)

    def __repr__(self) -> str:
        return f"Bend({self.slope}, {self.token})"

    def compile(self, context: CompileContext) -> Guide:
        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            self.calls.append(relaxed_BLV.detach())
            return self.slope * relaxed_BLV[..., self.token].sum(-1)

        return Guide(energy=energy)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        return 0.0


@given(st.integers(1, 6), st.integers(0, 1000))
def test_the_pull_of_a_guide_does_not_depend_on_the_batch(rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 3, 4, generator=generator, dtype=torch.float64)
    target_V = torch.randn(4, generator=generator, dtype=torch.float64)

    def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
        return (relaxed_BLV @ target_V).mean(-1).square()

    guide = Guide(energy=energy, bias=lambda step: target_V)
    tokens = torch.zeros(rows, 3, dtype=torch.int64)
    together = shift(logits, guide, step_at(tokens))
    for row in range(rows):
        here = slice(row, row + 1)
        alone = shift(logits[here], guide, step_at(tokens[here]))
        assert torch.allclose(alone[0], together[row], rtol=0, atol=1e-12)
    relaxed = logits.softmax(-1)
    pull = 2 * (relaxed @ target_V).mean(-1)[:, None, None] * target_V / 3
    assert torch.allclose(together - logits, target_V - pull, rtol=0, atol=1e-9)


def test_all_energies_share_one_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (passes.append(1), real(*a, **k))[1])
    bends = [Bend(1.0), Bend(2.0, token=1), Bend(-1.0, token=2)]
    out = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(
        constraint=bends[0] & bends[1] & 0.5 * bends[2], steps=3, num_samples=4
    )
    assert len(passes) == out.denoiser_calls
    assert all(len(bend.calls) == out.denoiser_calls for bend in bends)


def test_an_energy_sees_decided_tokens_as_they_are() -> None:
    """Whatever the model says about a position that is already written."""
    seen: list[Tensor] = []

    def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
        seen.append(relaxed_BLV.detach())
        return relaxed_BLV.sum((1, 2))

    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = torch.tensor([[2, -1, -1], [-1, 0, 1]])
    shift(logits, Guide(energy=energy), step_at(known), known)
    onehot = torch.nn.functional.one_hot(known.clamp_min(0), 4).double()
    assert torch.allclose(seen[0], torch.where(known[..., None] >= 0, onehot, logits.softmax(-1)))


@pytest.mark.parametrize("size", [60.0, 1e4, 1e30, float("inf")])
def test_a_shift_is_at_most_50_nats(size: float) -> None:
    logits = torch.zeros(1, 2, 3, dtype=torch.float64)
    bias_V = torch.tensor([size, -size, 1.0], dtype=torch.float64)
    moved = shift(logits, Guide(bias=lambda step: bias_V), step_at(torch.zeros(1, 2, dtype=torch.int64)))
    assert torch.equal(moved[0, 0], torch.tensor([MAX_SHIFT, -MAX_SHIFT, 1.0], dtype=torch.float64))

    def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
        return -(relaxed_BLV * bias_V.clamp(-1e300, 1e300)).sum((1, 2))

    both = Guide(bias=lambda step: bias_V, energy=energy)
    moved = shift(logits, both, step_at(torch.zeros(1, 2, dtype=torch.int64)))
    assert torch.equal(moved[0, 0], torch.tensor([MAX_SHIFT, -MAX_SHIFT, 2.0], dtype=torch.float64))


def test_an_energy_of_the_wrong_shape_is_refused() -> None:
    guide = Guide(energy=lambda relaxed_BLV, step: relaxed_BLV.sum())
    with pytest.raises(InvalidRequest, match=r"one number per row, shape \(2,\); got \(\)"):
        shift(torch.zeros(2, 3, 4), guide, step_at(torch.zeros(2, 3, dtype=torch.int64)))


def test_a_soft_pull_tilts_the_law_by_its_exact_strength() -> None:
    """One step, a linear energy: the law is factors times exp(-slope), times the automaton."""
    out = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(
        constraint=Pattern("(ab|c)*b?") & 2.0 * Bend(-0.6), num_samples=20_000, steps=1, batch_size=20_000
    )
    factors = marginals_of(JOINT.flatten(), 4) * torch.tensor([1.2, 0.0, 0.0, 0.0], dtype=torch.float64).exp()
    automaton = Pattern("(ab|c)*b?").to_automaton().lift(PLAIN)
    law = product_law(factors, accepted(automaton, 3).double())
    assert chi_square(counts(out.tokens, 4), law) > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_flattens_the_factors_before_the_constraint(temperature: float) -> None:
    out = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(
        constraint=Pattern("(ab|c)*b?"), num_samples=20_000, steps=1, batch_size=20_000, temperature=temperature
    )
    factors = marginals_of(JOINT.flatten(), 4) ** (1 / temperature)
    automaton = Pattern("(ab|c)*b?").to_automaton().lift(PLAIN)
    law = product_law(factors / factors.sum(-1, keepdim=True), accepted(automaton, 3).double())
    assert chi_square(counts(out.tokens, 4), law) > 1e-3


@pytest.mark.parametrize("constraint", [None, Pattern("(ab|c)*b?"), Pattern("[^c]*")], ids=repr)
def test_temperature_zero_is_the_mode_of_the_posterior_whatever_the_seed(constraint: Constraint | None) -> None:
    pipe = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))
    out = pipe(constraint=constraint, num_samples=5, steps=1, temperature=0.0)
    weight = torch.ones(64).double()
    if isinstance(constraint, Pattern):
        weight = accepted(constraint.to_automaton().lift(PLAIN), 3).double()
    best = int(product_law(marginals_of(JOINT.flatten(), 4), weight).argmax())
    assert counts(out.tokens, 4)[best] == 5
    many = pipe(constraint=constraint, num_samples=5, steps=3, temperature=0.0)
    assert len(many.tokens.unique(dim=0)) == 1


@given(st.integers(0, 1000), st.integers(1, 6), st.floats(0.05, 1.0))
def test_truncation_takes_50_nats_from_what_it_leaves_out(seed: int, top_k: int, top_p: float) -> None:
    logits = 2 * torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for option in ({"top_k": top_k}, {"top_p": top_p}):
        lost = logits - Truncation(**option).apply(logits)
        assert torch.all((lost == 0) | ((lost - MAX_SHIFT).abs() < 1e-9))
        for p, gone in zip(logits.softmax(-1).reshape(-1, 6), (lost > 0).reshape(-1, 6), strict=True):
            order = p.argsort(descending=True)
            if "top_k" in option:
                kept = order[:top_k]
            else:
                before = p[order].cumsum(0) - p[order]
                kept = order[before < top_p - 1e-12]
                assert p[kept].sum() >= top_p - 1e-9 or len(kept) == 6
            assert set((~gone).nonzero()[:, 0].tolist()) == set(kept.tolist())


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 0.05}, {"top_k": 1, "temperature": 0.01}, {"top_k": 2}])
def test_truncation_never_breaks_a_hard_constraint(options: dict[str, Any]) -> None:
    for pattern in ("c.*b.*", "aaa", "b.c", "(ab|c)*b?"):
        out = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))(
            constraint=Pattern(pattern), num_samples=50, steps=2, **options
        )
        assert bool(out.satisfied.all())


def test_truncation_keeps_the_likeliest_among_what_the_constraint_allows() -> None:
    """Where all that is allowed was left out, the law among it is the untruncated one."""
    joint = torch.zeros(4, dtype=torch.float64)
    joint[:3] = torch.tensor([0.7, 0.2, 0.1])
    out = GuidedPipeline(TabularDenoiser(joint, PLAIN))(
        constraint=Pattern("b|c"), num_samples=20_000, steps=1, top_k=1, batch_size=20_000
    )
    assert chi_square(counts(out.tokens, 4), torch.tensor([0.0, 2 / 3, 1 / 3, 0.0]).double()) > 1e-3


@given(st.integers(0, 1000), st.floats(0.02, 1.0), st.sampled_from([None, 1, 2]))
def test_what_a_model_calls_impossible_stays_below_what_it_calls_unlikely(
    seed: int, temperature: float, top_k: int | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    impossible = torch.rand(logits.shape, generator=generator) < 0.4
    impossible[..., 0] = False
    writable_V = torch.tensor([True] * 5 + [False])
    cut = Truncation(temperature=temperature, top_k=top_k).apply(logits.masked_fill(impossible, -torch.inf))
    floored = floor(cut, writable_V)
    assert bool(floored[..., :5].isfinite().all())
    assert bool(floored[..., 5][impossible[..., 5]].isneginf().all())
    assert torch.equal(floored[~impossible], cut[~impossible])
    best = floored.amax(-1, keepdim=True)
    lowest_possible = floored.masked_fill(impossible, torch.inf).amin(-1, keepdim=True)
    raised = impossible & writable_V
    assert bool(((floored <= lowest_possible) & (floored <= best - MAX_SHIFT))[raised].all())


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"temperature": 1e-4}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_truncation_outside_its_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        Truncation(**options)
