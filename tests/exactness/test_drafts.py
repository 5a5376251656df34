"""Verified drafts against the law of their verifier, by enumeration."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from oracles import Pattern, accepted, canvases, chi_square, counts, random_joint
from torch import Tensor

from constraints import Length
from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.automata import ByteAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import Constraint, Guide
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.denoisers.causal import CausalModel
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.processes import UniformProcess
from guided_dlm.samplers import STOP, Rerank, Snapshot
from tests.tiny import tiny_model, tiny_pipeline, word_tokenizer

ROWS, LENGTH = 20_000, 4
TAILED = Vocabulary.from_tokens([b"a", b"b", b"", b"", b""], eos_id=2, pad_id=3, mask_id=4)
SIZE = len(TAILED)


def tailed(seed: int) -> Tensor:
    joint = random_joint(SIZE, LENGTH, seed)
    joint = joint * accepted(ByteAutomaton.from_regex("[ab]*").lift(TAILED), LENGTH).reshape(joint.shape)
    return joint / joint.sum()


@dataclass
class TabularCausal:
    """log p(x_l | x_<l) of a joint, by summing over what follows."""

    joint: Tensor
    vocabulary: Vocabulary = TAILED

    def __call__(self, canvas: Canvas) -> Tensor:
        rows = []
        for place in range(LENGTH):
            head = self.joint.sum(tuple(range(place + 1, LENGTH))) if place + 1 < LENGTH else self.joint
            law_BV = head[tuple(canvas.tokens_BL[:, :place].T)] if place else head.expand(len(canvas.tokens_BL), -1)
            rows.append((law_BV / law_BV.sum(-1, keepdim=True)).nan_to_num(1.0 / SIZE).clamp_min(1e-300).log())
        return torch.stack(rows, dim=1)


def token_by_token(joint: Tensor, allowed_N: Tensor) -> Tensor:
    """The causal law masked at each token to what can still be completed, `[V ** L]`."""
    allowed = allowed_N.reshape(joint.shape).double()
    law_N = torch.ones(SIZE**LENGTH, dtype=torch.float64)
    every = canvases(SIZE, LENGTH)
    for place in range(LENGTH):
        later = tuple(range(place + 1, LENGTH))
        head = joint.sum(later) if later else joint
        live = (allowed.sum(later) if later else allowed) > 0
        masked = head * live
        p = (masked / masked.sum(-1, keepdim=True)).nan_to_num(0.0)
        law_N = law_N * p[tuple(every[:, : place + 1].T)]
    return law_N


@pytest.mark.parametrize("pattern", [None, "a*b?", "(ab)*|b+"])
@pytest.mark.parametrize(("same", "temperature"), [(False, 1.0), (True, 1.0), (False, 0.5)])
def test_texts_have_the_law_of_the_verifier(pattern: str | None, same: bool, temperature: float) -> None:
    judge = tailed(1)
    pipe = GuidedPipeline(TabularDenoiser(judge if same else tailed(2), TAILED))
    wish = None if pattern is None else Pattern(pattern)
    out = pipe(constraint=wish, num_samples=ROWS, max_new_tokens=LENGTH, batch_size=ROWS, verifier=TabularCausal(judge))
    allowed_N = accepted(ByteAutomaton.from_regex(pattern or "[ab]*").lift(TAILED), LENGTH)
    assert bool(out.satisfied.all())
    assert chi_square(counts(out.tokens, SIZE), token_by_token(judge, allowed_N)) > 1e-3
    assert out.denoiser_calls <= LENGTH


def test_each_prompt_may_have_its_own_constraint() -> None:
    pipe = GuidedPipeline(TabularDenoiser(tailed(2), TAILED))
    wishes = [Pattern("a*b?"), Pattern("b+"), None]
    out = pipe([None] * 3, wishes, num_samples=4, max_new_tokens=LENGTH, verifier=TabularCausal(tailed(1)))
    assert bool(out.satisfied.all())


def test_a_draft_that_is_right_is_kept_whole() -> None:
    """Independent positions under both models: nothing is rejected, and one call writes everything."""
    law = torch.tensor([0.7, 0.3], dtype=torch.float64)
    plain = Vocabulary.from_tokens([b"a", b"b", b""], eos_id=None, mask_id=2)
    joint = torch.zeros(3, 3, dtype=torch.float64)
    joint[:2, :2] = law[:, None] * law[None, :]

    class Independent:
        vocabulary = plain

        def __call__(self, canvas: Canvas) -> Tensor:
            law_V = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
            return law_V.log().expand(*canvas.tokens_BL.shape, 3)

    out = GuidedPipeline(TabularDenoiser(joint, plain))(num_samples=500, max_new_tokens=2, verifier=Independent())
    assert out.denoiser_calls <= 10  # 8 batches; a coin that ties with its bound counts as a rejection


def test_rows_are_their_own_and_a_stop_gives_texts_that_satisfy() -> None:
    pipe, judge = tiny_pipeline(canvas=10), CausalModel(tiny_model(10, seed=3, causal=True), VOCABULARY)
    together = pipe(num_samples=5, max_new_tokens=10, verifier=judge, seed=list(range(5)))
    assert [pipe(max_new_tokens=10, verifier=judge, seed=[row]).texts[0] for row in range(5)] == together.texts

    def stop(snapshot: Snapshot) -> str:
        return STOP

    for wish in (Pattern("[A-Za-z ]+"), None):
        out = pipe(constraint=wish, num_samples=5, max_new_tokens=10, verifier=judge, callback=stop)
        assert bool(out.satisfied.all()) and out.stopped and out.denoiser_calls == 1
        for row in out.tokens.tolist():
            text = VOCABULARY.text_length(row)
            assert set(row[text + 1 :]) <= {VOCABULARY.pad_id} and row[text : text + 1] in ([], [VOCABULARY.eos_id])


VOCABULARY = Vocabulary.from_tokenizer(word_tokenizer())


@dataclass(frozen=True, kw_only=True)
class Soft(Constraint):
    def compile(self, context: object) -> Guide:
        return Guide(bias=lambda step: torch.zeros(()))

    def check(self, text: str, tokens: object = None) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"verifier": "judge"}, InvalidRequest, "is no causal model"),
        ({"verifier": TabularCausal(tailed(1)), "corrector": "p2"}, InvalidRequest, "which corrector='p2' cannot"),
        ({"verifier": TabularCausal(tailed(1)), "temperature": 0.0}, InvalidRequest, "which temperature=0.0 cannot"),
        ({"verifier": TabularCausal(tailed(1)), "particles": 3}, InvalidRequest, "which particles=3 cannot change"),
        ({"verifier": TabularCausal(tailed(1)), "top_k": 3}, InvalidRequest, "which top_k=3 cannot change"),
        ({"verifier": TabularCausal(tailed(1)), "constraint": Soft()}, InvalidRequest, "only the drafts"),
        ({"verifier": TabularCausal(tailed(1), VOCABULARY)}, VocabularyMismatch, "writes other tokens"),
        (
            {"verifier": TabularCausal(tailed(1)), "rerank": Rerank(score=lambda texts: [0.0] * len(texts))},
            InvalidRequest,
            "cannot change",
        ),
    ],
)
def test_what_cannot_be_verified_is_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GuidedPipeline(TabularDenoiser(tailed(2), TAILED))(max_new_tokens=LENGTH, **options)


def test_only_masked_models_draft() -> None:
    denoiser = TabularDenoiser(tailed(2), TAILED, process=UniformProcess(size=SIZE, token_ids=(0, 1, 2, 3)))
    with pytest.raises(InvalidRequest, match="needs a masked model"):
        GuidedPipeline(denoiser)(max_new_tokens=LENGTH, verifier=TabularCausal(tailed(1)))


def test_a_model_that_is_not_causal_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not autoregressive"):
        CausalModel(tiny_model(10), VOCABULARY)
    with pytest.raises(InvalidRequest, match="There is no model in 'nowhere'"):
        CausalModel.from_pretrained("nowhere")


def test_a_folder_of_an_autoregressive_model_verifies(tmp_path: Path) -> None:
    tiny_model(10, seed=3, causal=True).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    judge, here = CausalModel.from_pretrained(tmp_path), CausalModel(tiny_model(10, seed=3, causal=True), VOCABULARY)
    pipe = tiny_pipeline(canvas=10)
    out = pipe(constraint=Length(words=(2, 5)), num_samples=3, max_new_tokens=10, verifier=judge)
    assert bool(out.satisfied.all())
    assert out.texts == pipe(constraint=Length(words=(2, 5)), num_samples=3, max_new_tokens=10, verifier=here).texts
    with pytest.raises(InvalidRequest, match="reads texts from their start"):
        pipe("The pub", num_samples=1, max_new_tokens=8, verifier=judge)
