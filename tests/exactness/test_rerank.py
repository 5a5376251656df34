"""Energy reranking against the law of its candidates, by enumeration."""

import itertools

import pytest
import torch
from oracles import Pattern, accepted, canvases, chi_square, counts, marginals_of, product_law, random_joint, tv
from problems import PLAIN
from torch import Tensor

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import Constraint, Guide
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import GuideFailed, InvalidRequest
from guided_dlm.processes import MaskedProcess, UniformProcess
from guided_dlm.samplers import Rerank

SIZE, LENGTH, ROWS = 4, 3, 20_000
MODEL, JUDGE = (random_joint(SIZE, LENGTH, seed=seed, sharpness=0.7, text=[0, 1, 2]) for seed in (1, 2))
EVERY = canvases(SIZE, LENGTH)
PROCESSES = [MaskedProcess(mask_id=3), UniformProcess(size=SIZE, token_ids=(0, 1, 2))]


def judge(texts: list[str]) -> list[float]:
    return [float(JUDGE[tuple("abc".index(c) for c in text)].log()) for text in texts]


def two_candidates(q_N: Tensor, weight_N: Tensor) -> Tensor:
    """P(x) = 2 q(x) sum_y q(y) w(x) / (w(x) + w(y)): one of two draws, kept by weight."""
    kept_NN = weight_N[:, None] / (weight_N[:, None] + weight_N[None, :])
    return 2 * q_N * (q_N * kept_NN).nan_to_num(0.0).sum(-1)


def drawn(process: object, constraint: Constraint | None = None, steps: int = 1, candidates: int = 2) -> Tensor:
    pipe = GuidedPipeline(TabularDenoiser(MODEL, PLAIN, process=process))
    out = pipe(
        constraint=constraint, num_samples=ROWS, max_new_tokens=LENGTH, steps=steps, batch_size=ROWS,
        rerank=Rerank(score=judge, candidates=candidates),
    )  # fmt: skip
    assert bool(out.satisfied.all())
    return out.tokens


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("pattern", [None, "[ab]*c?"])
def test_one_step_has_the_law_of_its_candidates(process: object, pattern: str | None) -> None:
    allowed_N = torch.ones(SIZE**LENGTH, dtype=torch.bool)
    if pattern is not None:
        allowed_N = accepted(ByteAutomaton.from_regex(pattern).lift(PLAIN), LENGTH)
    factors_LV = marginals_of(MODEL.flatten(), SIZE)
    own_N = product_law(factors_LV, torch.ones(SIZE**LENGTH, dtype=torch.float64))
    weight_N = torch.where(own_N > 0, JUDGE.flatten() / own_N, 0.0)
    law_N = two_candidates(product_law(factors_LV, allowed_N.double()), weight_N)
    tokens = drawn(process, None if pattern is None else Pattern(pattern))
    assert chi_square(counts(tokens, SIZE), law_N) > 1e-3
    undivided_N = two_candidates(product_law(factors_LV, allowed_N.double()), JUDGE.flatten())
    assert chi_square(counts(tokens, SIZE), undivided_N) < 1e-3  # the division can be told from none


def test_many_candidates_have_the_law_of_the_judge() -> None:
    found = {k: counts(drawn(PROCESSES[0], candidates=k), SIZE) for k in (2, 8, 64)}
    distance = [tv(found[k], JUDGE.flatten()) for k in found]
    assert all(near < 0.5 * far for far, near in itertools.pairwise(distance)) and distance[-1] < 0.03


@pytest.mark.parametrize("candidates", [2, 32])
def test_texts_with_an_end_are_well_formed_and_have_their_law(candidates: int) -> None:
    """What the judge reads is all that stands on the canvas: no candidate has text behind its end."""
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b"", b"", b""], eos_id=2, pad_id=3, mask_id=4)
    whole_N = accepted(ByteAutomaton.from_regex("[ab]*").lift(vocabulary), 3)
    model, target = (random_joint(5, 3, seed=seed, sharpness=0.7) for seed in (3, 4))
    model, target = (joint.flatten() * whole_N / (joint.flatten() * whole_N).sum() for joint in (model, target))

    def score(texts: list[str]) -> list[float]:
        rows = [["ab".index(c) for c in text] + [2, 3, 3] for text in texts]
        return [float(target.reshape(5, 5, 5)[tuple(row[:3])].log()) for row in rows]

    pipe = GuidedPipeline(TabularDenoiser(model.reshape(5, 5, 5), vocabulary))
    out = pipe(
        num_samples=ROWS, max_new_tokens=3, steps=1, batch_size=ROWS, sampler="random",
        rerank=Rerank(score=score, candidates=candidates),
    )  # fmt: skip
    found = counts(out.tokens, 5)
    assert int(found[~whole_N.numpy()].sum()) == 0
    if candidates == 2:
        factors_LV = marginals_of(model, 5)
        own_N = product_law(factors_LV, torch.ones(125, dtype=torch.float64))
        weight_N = torch.where(own_N > 0, target / own_N, 0.0)
        assert chi_square(found, two_candidates(product_law(factors_LV, whole_N.double()), weight_N)) > 1e-3
    else:
        assert tv(found, target) < 0.05


def test_guides_are_not_divided_out() -> None:
    """A bias pulls the candidates and stays in their law; only the model's own factors are taken out."""

    class Bias(Pattern):
        hard = False

        def compile(self, context: object) -> Guide:
            pull_V = torch.tensor([1.0, 0.0, 0.0, 0.0])
            return Guide(bias=lambda step: pull_V)

        def check(self, text: str, tokens: object = None) -> float:
            return 0.0

    factors_LV = marginals_of(MODEL.flatten(), SIZE)
    own_N = product_law(factors_LV, torch.ones(SIZE**LENGTH, dtype=torch.float64))
    pulled_N = product_law(factors_LV, ((EVERY == 0).sum(-1).double()).exp())
    weight_N = torch.where(own_N > 0, JUDGE.flatten() / own_N, 0.0)
    tokens = drawn(PROCESSES[0], Bias("x"))
    assert chi_square(counts(tokens, SIZE), two_candidates(pulled_N, weight_N)) > 1e-3


def test_a_row_does_not_depend_on_its_batch_and_the_window_matters() -> None:
    pipe = GuidedPipeline(TabularDenoiser(MODEL, PLAIN, process=PROCESSES[0]))
    rerank = Rerank(score=judge, candidates=4)
    together = pipe(num_samples=8, max_new_tokens=LENGTH, steps=3, rerank=rerank, seed=list(range(8)))
    alone = [pipe(max_new_tokens=LENGTH, steps=3, rerank=rerank, seed=[row]).texts[0] for row in range(8)]
    apart = pipe(num_samples=8, max_new_tokens=LENGTH, steps=3, rerank=rerank, seed=list(range(8)), batch_size=3)
    assert together.texts == apart.texts == alone
    plain = pipe(num_samples=8, max_new_tokens=LENGTH, steps=3, seed=list(range(8)))
    never = Rerank(score=judge, candidates=4, window=(0.9, 1.0))
    assert pipe(num_samples=8, max_new_tokens=LENGTH, steps=3, rerank=never, seed=list(range(8))).texts == plain.texts
    assert together.texts != plain.texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerank": "judge"}, r"is no Rerank; give Rerank\(score=judge.log_p"),
        ({"rerank": Rerank(score=judge), "temperature": 0.0}, "temperature=0 draws nothing"),
        ({"rerank": Rerank(score=judge), "particles": 2}, "particles=2, whose weights"),
        (
            {"rerank": Rerank(score=judge), "block_length": 2},
            "reads whole texts, so it cannot be combined with block_length=2",
        ),
    ],
)
def test_what_cannot_be_reranked_is_refused(options: dict[str, object], message: str) -> None:
    pipe = GuidedPipeline(TabularDenoiser(MODEL, PLAIN, process=PROCESSES[0]))
    with pytest.raises(InvalidRequest, match=message):
        pipe(max_new_tokens=LENGTH, steps=1, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 1},
        {"candidates": True},
        {"window": (0.5, 0.2)},
        {"window": None},
        {"window": ("a", "b")},
        {"score": 3},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="Rerank: "):
        Rerank(**{"score": judge, **options})


def test_a_judge_that_fails_is_named() -> None:
    pipe = GuidedPipeline(TabularDenoiser(MODEL, PLAIN, process=PROCESSES[0]))
    with pytest.raises(GuideFailed, match="Rerank, score at step 1"):
        pipe(max_new_tokens=LENGTH, steps=1, rerank=Rerank(score=lambda texts: [float("nan")] * len(texts)))
