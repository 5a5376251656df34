"""Guides that fail, lie or explode: the error names them and the step, and hard constraints hold regardless."""

import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Pattern, random_joint
from problems import PLAIN, NoisyClassifier
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from constraints import Classifier, Energy, Reward
from guided_dlm import CompileContext, Constraint, GuidedPipeline, Step, Vocabulary
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.errors import GuidedError, GuideFailed, InvalidRequest, VocabularyMismatch

JOINT = random_joint(4, 3, seed=1, text=[0, 1, 2])
PIPE = GuidedPipeline(TabularDenoiser(JOINT, PLAIN))


def raising(relaxed_BLV: Tensor, step: Step) -> Tensor:
    raise KeyError("lost")


def late(relaxed_BLV: Tensor, step: Step) -> Tensor:
    energy_B = relaxed_BLV.sum((1, 2))
    return energy_B * float("nan") if step.index == 2 else energy_B


def whole(relaxed_BLV: Tensor, step: Step) -> Tensor:
    return relaxed_BLV.sum()


def cut_off(relaxed_BLV: Tensor, step: Step) -> Tensor:
    return relaxed_BLV.detach().sum((1, 2))


def root(relaxed_BLV: Tensor, step: Step) -> Tensor:
    """Finite, but its gradient is infinity times zero."""
    return (relaxed_BLV.sum((1, 2)) * 0.0).sqrt()


def number(relaxed_BLV: Tensor, step: Step) -> float:
    return 1.0


FAILING: list[tuple[Callable[..., object], str]] = [
    (raising, r"Energy\(raising.*step 1 of 3: it raised KeyError: 'lost'"),
    (late, r"Energy\(late.*step 3 of 3: it is NaN"),
    (whole, r"Energy\(whole.*step 1 of 3: an energy returns one number per row, shape \(2,\); got \(\)"),
    (cut_off, r"Energy\(cut_off.*step 1 of 3: the energy has no gradient"),
    (root, r"Energy\(root.*step 1 of 3, gradient: it is NaN"),
    (number, r"Energy\(number.*it returned a float; return a torch tensor"),
]


@pytest.mark.parametrize(("function", "reason"), FAILING, ids=lambda value: getattr(value, "__name__", ""))
def test_a_guide_that_fails_is_named_with_the_step(function: Callable[..., Tensor], reason: str) -> None:
    fine = Energy(lambda relaxed_BLV, step: relaxed_BLV.sum((1, 2)))
    for wish in (Energy(function), fine & Energy(function) & Pattern("(ab|c)*b?")):
        with pytest.raises(GuidedError, match=reason):
            PIPE(constraint=wish, steps=3, num_samples=2)


@pytest.mark.parametrize("size", [0.0, 1e3, 1e30, float("inf"), -float("inf")])
@pytest.mark.parametrize("pattern", ["(ab|c)*b?", "a.*b", "cc.*"])
def test_hard_constraints_hold_under_any_strength_of_any_guide(size: float, pattern: str) -> None:
    def pull(relaxed_BLV: Tensor, step: Step) -> Tensor:
        return size * (1 + relaxed_BLV[..., 0].sum(-1)) if size else 0.0 * relaxed_BLV.sum((1, 2))

    hostile = Energy(pull) & Classifier(NoisyClassifier(JOINT), 0, method="exact", tokenizer=PLAIN, strength=1e6)
    for sampler in ("confidence", "ancestral"):
        out = PIPE(constraint=Pattern(pattern) & hostile, steps=2, num_samples=40, sampler=sampler)
        assert bool(out.satisfied.all())


def test_two_infinite_pulls_against_each_other_are_no_nan() -> None:
    up, down = (Energy(lambda r, step, s=s: s * float("inf") * (1 + r[..., 0].sum(-1))) for s in (1, -1))  # type: ignore[misc]
    out = PIPE(constraint=Pattern("(ab|c)*b?") & up & down, steps=2, num_samples=20)
    assert bool(out.satisfied.all())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda texts: [0.0], r"one number per text, shape \(4,\); got \(1,\)"),
        (lambda texts: [float("nan")] * len(texts), "it is NaN"),
        (lambda texts: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_reward_that_fails_is_named(function: Callable[[list[str]], list[float]], reason: str) -> None:
    with pytest.raises(GuidedError, match=reason):
        PIPE(constraint=Reward(function), steps=2, particles=4)


class Bag(nn.Module):
    """A classifier of its own vocabulary."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, 2)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, tokens_NLV: Tensor) -> Tensor:
        return tokens_NLV.float().mean(1) @ self.embedding.weight


def test_a_classifier_of_other_tokens_never_runs_on_the_wrong_ids() -> None:
    other = Vocabulary.from_tokens([b"b", b"a", b"c", b""], eos_id=None, mask_id=3)
    for method in ("auto", "relaxed", "exact"):
        with pytest.raises(VocabularyMismatch, match="method='reward'"):
            PIPE(constraint=Classifier(Bag(4), 0, method=method, tokenizer=other), steps=2)
    with pytest.raises(VocabularyMismatch, match="embeds 2 tokens"):
        PIPE(constraint=Classifier(Bag(2), 0, tokenizer=PLAIN), steps=2)
    with pytest.raises(InvalidRequest, match="give target="):
        Classifier(Bag(4), 0, method="relaxed")


@pytest.mark.parametrize("method", ["relaxed", "first_order", "straight_through", "entropy_weighted", "exact"])
def test_every_method_pulls_towards_its_target_and_is_traced(method: str) -> None:
    class Counts(nn.Module):
        def forward(self, tokens_NLV: Tensor) -> Tensor:
            return tokens_NLV.sum(1)[:, :2] * torch.tensor([1.0, -1.0], dtype=tokens_NLV.dtype)

    wish = Classifier(Counts(), target=0, strength=3.0, method=method, tokenizer=PLAIN)
    pipe = GuidedPipeline(TabularDenoiser(random_joint(4, 3, seed=1, sharpness=0.3, text=[0, 1, 2]), PLAIN))
    plain = pipe(num_samples=400, steps=3)
    out = pipe(constraint=wish, num_samples=400, steps=3, return_trace=True)
    share = [float((o.tokens == 0).double().mean()) for o in (plain, out)]
    assert share[1] > share[0] + 0.04
    assert out.trace is not None
    moved = [step.moved[repr(wish)] for step in out.trace.steps]
    assert all(bool(((m >= 0) & (m <= 1)).all()) for m in moved)
    assert float(moved[0].mean()) > 0.01
    if method != "exact":
        score = [step.scores[repr(wish)] for step in out.trace.steps]
        assert float(score[-1].mean()) > float(score[0].mean()) - 0.2


def test_no_strength_is_bit_identical_to_unguided() -> None:
    plain = PIPE(num_samples=50, steps=3)
    for method in ("relaxed", "first_order", "exact"):
        wish: Constraint = Classifier(NoisyClassifier(JOINT), 0, method=method, tokenizer=PLAIN, strength=0.0)
        if method != "exact":
            wish = Energy(lambda relaxed_BLV, step: 0.0 * relaxed_BLV.sum((1, 2)))
        assert torch.equal(PIPE(constraint=wish, num_samples=50, steps=3).tokens, plain.tokens)


def test_an_unknown_class_is_said_with_those_there_are() -> None:
    class Named:
        classes_ = ("bad", "good")

        def predict_proba(self, texts: list[str]) -> list[list[float]]:
            return [[0.2, 0.8] for _ in texts]

    assert Classifier(Named(), "good").check("x") == pytest.approx(torch.tensor(0.8).log().item(), abs=1e-6)
    with pytest.raises(InvalidRequest, match=r"knows \['bad', 'good'\]"):
        Classifier(Named(), "fine").check("x")
    with pytest.raises(GuideFailed, match="it raised"):
        PIPE(constraint=Reward(lambda texts: [text.nothing for text in texts]), steps=2, particles=2)  # type: ignore[attr-defined]


def test_an_energy_of_the_argmax_cannot_be_differentiated_and_says_so() -> None:
    class Hard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, tokens_NLV: Tensor) -> Tensor:
            return self.table(tokens_NLV.argmax(-1)).sum(1)

    with pytest.raises(GuideFailed, match="Step 1 of 2: the energies cannot be differentiated"):
        PIPE(constraint=Classifier(Hard(), 0, tokenizer=PLAIN), steps=2)


def test_a_classifier_that_answers_at_random_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 2))
    with pytest.raises(InvalidRequest, match=r"training mode.*eval\(\)"):
        PIPE(constraint=Classifier(model, 0, tokenizer=PLAIN), steps=2)


def test_special_tokens_in_other_places_are_other_tokens() -> None:
    tokens = (b"a", b"b", b"", b"", b"")
    mine, theirs = Vocabulary(tokens, eos_id=2, pad_id=3, mask_id=4), Vocabulary(tokens, eos_id=4, pad_id=2, mask_id=3)
    with pytest.raises(VocabularyMismatch, match=r"\(4, 2, 3\), the model's are \(2, 3, 4\)"):
        Classifier(Bag(5), 0, tokenizer=theirs).compile(CompileContext(vocabulary=mine, length=4))


def test_a_reward_beside_a_gradient_guide_still_needs_particles_and_has_no_window() -> None:
    gradient = Classifier(NoisyClassifier(JOINT), 0, method="exact", tokenizer=PLAIN)
    reward = Reward(lambda texts: [0.0] * len(texts))
    with pytest.raises(InvalidRequest, match="Give particles=8"):
        PIPE(constraint=gradient & reward, steps=2)
    assert PIPE(constraint=gradient, steps=2).texts
    for wish in (reward.during(0, 0.5), (gradient & reward).during(0, 0.5), reward.scheduled((0, 1))):
        with pytest.raises(TypeError, match="a reward is of finished texts"):
            PIPE(constraint=wish, steps=2, particles=4)


def test_infinity_outside_a_guides_window_is_nothing() -> None:
    infinite = Energy(lambda relaxed_BLV, step: float("inf") * (1 + relaxed_BLV[..., 0].sum(-1))).during(0, 0.5)
    out = PIPE(constraint=infinite & Pattern("(ab|c)*b?"), num_samples=20, steps=6, sampler="ancestral")
    assert bool(out.satisfied.all())


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (lambda p: float("nan"), "returned nan"),
        (lambda p: None, "returned None"),
        (lambda p: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_guidance_schedule_that_fails_is_named(schedule: Callable[[float], float], reason: str) -> None:
    second = TabularDenoiser(random_joint(4, 3, seed=9, text=[0, 1, 2]), PLAIN)
    with pytest.raises(GuideFailed, match=f"guidance_scale at progress 0.000.*{reason}"):
        PIPE(constraint=Pattern("a.*b"), unconditional=second, guidance_scale=schedule, steps=2)


def test_logits_that_are_no_numbers_stop_the_run() -> None:
    class Broken(TabularDenoiser):
        def __call__(self, canvas: Any, t: float, carry: Any = None) -> Any:
            logits_BLV, carry = super().__call__(canvas, t, carry)
            return logits_BLV * float("nan"), carry

    with pytest.raises(GuideFailed, match="The logits of step 1 of 2 are NaN"):
        GuidedPipeline(Broken(JOINT, PLAIN))(constraint=Pattern("a.*b"), steps=2)


def test_a_model_by_name_is_no_unconditional_half() -> None:
    with pytest.raises(InvalidRequest, match="is no Denoiser"):
        PIPE(steps=2, guidance_scale=2.0, unconditional="restaurant-words")  # type: ignore[arg-type]


def test_a_guide_that_cannot_be_pickled_and_is_slow_works_under_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    """A lock cannot be pickled, copied or compared; the bar moves with every step that the guide takes."""
    lock, steps = threading.Lock(), []

    def slow(relaxed_BLV: Tensor, step: Step) -> Tensor:
        with lock:
            time.sleep(0.12)  # longer than a bar waits before it is drawn again
        steps.append(step.index)
        return relaxed_BLV[..., 0].sum(-1)

    wish = Energy(slow)
    with pytest.raises((TypeError, AttributeError), match=r"pickle"):
        pickle.dumps(wish)
    out = PIPE(constraint=wish & Pattern("(ab|c)*b?"), num_samples=2, steps=3, progress=True)
    assert bool(out.satisfied.all()) and steps == list(range(out.denoiser_calls))
    drawn = capfd.readouterr().err
    assert "sampling" in drawn and "33%" in drawn and "100%" in drawn


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("support", [None, 2])
def test_a_classifier_lives_where_it_likes(support: int | None) -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForSequenceClassification(config).eval()
    here = PIPE(constraint=Classifier(model, 1, tokenizer=PLAIN, strength=5.0, support=support), num_samples=8, steps=3)
    model.to("cuda")
    there = PIPE(
        constraint=Classifier(model, 1, tokenizer=PLAIN, strength=5.0, support=support), num_samples=8, steps=3
    )
    assert here.texts == there.texts
