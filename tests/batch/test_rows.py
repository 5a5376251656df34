"""A row depends on its own seed, prompt and constraint, never on its neighbours: bit for bit, in every family."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles import Pattern, canvases, random_joint
from torch import Tensor

from guided_dlm import CompileContext, Constraint, Guide, GuidedPipeline, Step, Vocabulary
from guided_dlm.algebra import All
from guided_dlm.denoisers import Denoiser, TabularDenoiser
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes import GaussianProcess, MaskedProcess, Process, SimplexProcess, UniformProcess
from guided_dlm.randomness import row_seeds
from guided_dlm.samplers import RULES

LENGTH = 4
MASKED = Vocabulary.from_tokens([b"a", b"b", b"", b"", b""], eos_id=2, pad_id=3, mask_id=4)
PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c"], eos_id=None)
HARD = [Pattern("(ab)*a?"), Pattern(".*b.*"), Pattern("a*|b{2}"), Pattern("[ab]{2,4}")]
SEEDS = [3, 1, 4, 1_000_000_007, 5, 9, 2]


def symmetric(joint: Tensor) -> Tensor:
    """A joint that does not change when read backwards, so that positions tie for every rank."""
    return joint + joint.permute(*reversed(range(joint.dim())))


class Prompted(Denoiser):
    """A tabular model with one joint for each prompt: the prompt is a text, and picks the joint."""

    def __init__(self, vocabulary: Vocabulary, process: Process | None, text: list[int] | None) -> None:
        joints = [symmetric(random_joint(len(vocabulary), LENGTH, seed=s, text=text)) for s in range(2)]
        self.models = [TabularDenoiser(joint, vocabulary, process) for joint in joints]
        self.vocabulary, self.process, self.full_support = vocabulary, self.models[0].process, False

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __call__(self, canvas: Any, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        from dataclasses import replace

        width = canvas.prompt_BP.shape[1]
        which_B = (canvas.prompt_BP * canvas.visible_BP).sum(-1) % 2 if width else canvas.tokens_BL[:, 0] * 0
        bare = replace(canvas, prompt_BP=canvas.prompt_BP[:, :0], visible_BP=canvas.visible_BP[:, :0])
        both = torch.stack([model(bare, t)[0] for model in self.models])
        return both[which_B, torch.arange(len(which_B))], None


FAMILIES: dict[str, tuple[Vocabulary, Process | None, list[int] | None, list[str]]] = {
    "masked": (
        MASKED,
        None,
        [0, 1, 2, 3],
        sorted(RULES),
    ),
    "uniform": (PLAIN, UniformProcess(size=3), None, ["ancestral"]),
    "gaussian": (
        PLAIN,
        GaussianProcess(embeddings_VD=torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], dtype=torch.float64)),
        None,
        ["ancestral"],
    ),
    "simplex": (PLAIN, SimplexProcess(size=3), None, ["ancestral"]),
}
CASES = [(family, sampler) for family, (*_, samplers) in FAMILIES.items() for sampler in samplers]


def pipeline(family: str) -> GuidedPipeline:
    vocabulary, process, text, _ = FAMILIES[family]
    return GuidedPipeline(Prompted(vocabulary, process, text))


@dataclass(frozen=True)
class Pull(Constraint):
    """A soft wish: a bias and an energy towards one token."""

    token: int
    strength: float = 1.0

    def compile(self, context: CompileContext) -> Guide:
        bias_V = torch.zeros(len(context.vocabulary))
        bias_V[self.token] = self.strength

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            return -self.strength * relaxed_BLV[..., self.token].sum(-1).square()

        return Guide(bias=lambda step: bias_V, energy=energy)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        return float(sum(token == self.token for token in tokens or []))


@pytest.mark.parametrize("constraint", [None, HARD[0], HARD[1] & Pull(0), Pull(1)], ids=repr)
@pytest.mark.parametrize(("family", "sampler"), CASES)
def test_a_row_of_a_batch_equals_the_row_alone(family: str, sampler: str, constraint: Constraint | None) -> None:
    pipe = pipeline(family)
    options: dict[str, Any] = {"constraint": constraint, "steps": 3, "sampler": sampler, "max_new_tokens": LENGTH}
    together = pipe(num_samples=len(SEEDS), seed=SEEDS, **options)
    for row, seed in enumerate(SEEDS):
        alone = pipe(seed=[seed], **options)
        assert torch.equal(alone.tokens[0], together.tokens[row])
    for batch_size in (1, 2, 3, 64):
        assert torch.equal(
            pipe(num_samples=len(SEEDS), seed=SEEDS, batch_size=batch_size, **options).tokens, together.tokens
        )
    order = torch.randperm(len(SEEDS), generator=torch.Generator().manual_seed(0))
    permuted = pipe(num_samples=len(SEEDS), seed=[SEEDS[i] for i in order], **options)
    assert torch.equal(permuted.tokens, together.tokens[order])


@pytest.mark.parametrize(("family", "sampler"), CASES)
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_prompts_and_constraints_of_their_own_do_not_leak_between_rows(
    family: str, sampler: str, temperature: float
) -> None:
    pipe = pipeline(family)
    prompts = ["a", "b", "abb", "ba", "a"]
    constraints = [HARD[0], HARD[1], None, HARD[2], HARD[3] & Pull(1)]
    options: dict[str, Any] = {"steps": 3, "sampler": sampler, "temperature": temperature, "max_new_tokens": LENGTH}
    together = pipe(prompts, constraints, num_samples=2, seed=list(range(10)), **options)
    assert bool(together.satisfied.all())
    for i, (prompt, constraint) in enumerate(zip(prompts, constraints, strict=True)):
        for n in range(2):
            alone = pipe(prompt, constraint, seed=[2 * i + n], **options)
            assert torch.equal(alone.tokens[0], together.tokens[2 * i + n])
    order = [3, 0, 4, 2, 1]
    permuted = pipe(
        [prompts[i] for i in order],
        [constraints[i] for i in order],
        num_samples=2,
        seed=[2 * i + n for i in order for n in range(2)],
        **options,
    )
    assert torch.equal(permuted.tokens, together.tokens.reshape(5, 2, -1)[order].reshape(10, -1))


@pytest.mark.parametrize(("family", "sampler"), CASES)
@pytest.mark.parametrize("nothing", [All(), 0.0 * Pull(0), All() & 0.0 * Pull(1)], ids=repr)
def test_constraints_that_ask_for_nothing_change_nothing(family: str, sampler: str, nothing: Constraint) -> None:
    pipe = pipeline(family)
    options: dict[str, Any] = {
        "num_samples": 16,
        "steps": 3,
        "sampler": sampler,
        "return_trace": True,
        "max_new_tokens": LENGTH,
    }
    plain, same = pipe(**options), pipe(constraint=nothing, **options)
    assert torch.equal(plain.tokens, same.tokens)
    hard, with_nothing = pipe(constraint=HARD[0], **options), pipe(constraint=HARD[0] & nothing, **options)
    assert torch.equal(hard.tokens, with_nothing.tokens)
    assert not torch.equal(plain.tokens, hard.tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hopeless", [False, True])
def test_a_posterior_row_draws_the_same_whatever_rules_the_other_rows(dtype: torch.dtype, hopeless: bool) -> None:
    """Also beside a row so unlikely that the batch needs logarithms; numbers then differ in their last bits only."""
    automata = [p.to_automaton().lift(MASKED) for p in HARD] * 3
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(len(automata), LENGTH, 5, generator=generator, dtype=dtype)
    if hopeless:
        logits[5, :, :2] -= 900.0
        logits[5, :, 2:4] = -2000.0
    batch, near = Posterior(logits, automata), 1e-12 if dtype == torch.float64 else 1e-5
    uniform = torch.rand(2, len(automata), LENGTH, generator=generator, dtype=torch.float64)
    for row, automaton in enumerate(automata):
        here = slice(row, row + 1)
        alone = Posterior(logits[here], automaton)
        assert torch.equal(alone.draw(*uniform[:, here])[0], batch.draw(*uniform)[row])
        assert torch.equal(alone.mode()[0], batch.mode()[row])
        assert torch.allclose(alone.log_z[0], batch.log_z[row], rtol=near, atol=near)
        assert torch.allclose(alone.marginals()[0], batch.marginals()[row], rtol=0, atol=near)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("sampler", ["confidence", "entropy_bound", "llada"])
def test_positions_that_tie_are_ranked_alike_beside_any_other_row(sampler: str, temperature: float) -> None:
    """A joint and constraints that read the same backwards: many positions tie exactly, and rounding may not decide."""
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3)
    joint = symmetric(random_joint(4, 5, seed=1, sharpness=0.5, text=[0, 1, 2]))
    pipe = GuidedPipeline(TabularDenoiser(joint, vocabulary))
    same = [Pattern(p) for p in (".*b.*", "(.*b.*){2}", "[ab]*c?[ab]*", "a*|b*|c*", "[^c]*", ".*", "(a|b.)*.b*")]
    options: dict[str, Any] = {"steps": 5, "sampler": sampler, "temperature": temperature}
    together = pipe([None] * len(same), same, num_samples=20, seed=list(range(20 * len(same))), **options)
    for i, constraint in enumerate(same):
        seeds = list(range(20 * i, 20 * (i + 1)))
        alone = pipe(constraint=constraint, num_samples=20, seed=seeds, **options)
        assert torch.equal(alone.tokens, together.tokens[20 * i : 20 * (i + 1)])
        singles = torch.cat([pipe(constraint=constraint, seed=[seed], **options).tokens for seed in seeds])
        assert torch.equal(singles, alone.tokens)


def test_the_posterior_of_a_wide_vocabulary_is_bit_equal_in_any_batch() -> None:
    tokens = [bytes([97 + i % 26]) * (1 + i // 26) for i in range(500)]
    automaton = Pattern("[^b]*b.*").to_automaton().lift(Vocabulary.from_tokens(tokens, eos_id=None))
    logits = torch.randn(17, 9, 500, generator=torch.Generator().manual_seed(0))
    batch, factors = Posterior(logits, automaton), Factors(logits)
    for row in range(17):
        here = slice(row, row + 1)
        assert torch.equal(Posterior(logits[here], automaton).marginals()[0], batch.marginals()[row])
        assert torch.equal(Factors(logits[here]).marginals()[0], factors.marginals()[row])


def test_a_tabular_prediction_is_bit_equal_in_any_batch() -> None:
    from oracles import canvas_of

    joint = symmetric(random_joint(4, 3, seed=0, text=[0, 1, 2]))
    denoiser = TabularDenoiser(joint, Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3))
    every = canvases(4, 3)
    together, _ = denoiser(canvas_of(every, denoiser.vocabulary), 0.5)
    for row in range(len(every)):
        alone, _ = denoiser(canvas_of(every[row : row + 1], denoiser.vocabulary), 0.5)
        assert torch.equal(alone[0], together[row])


def test_one_seed_gives_every_row_its_own() -> None:
    seeds = torch.cat([row_seeds(seed, 1000, torch.device("cpu")) for seed in range(20)])
    assert len(seeds.unique()) == 20_000
    assert torch.equal(row_seeds(7, 10, torch.device("cpu")), row_seeds(7, 20, torch.device("cpu"))[:10])


def test_the_masked_process_is_the_default_one() -> None:
    joint = random_joint(5, 2, seed=0, text=[0, 1])
    assert TabularDenoiser(joint, MASKED).process == MaskedProcess(mask_id=4)
