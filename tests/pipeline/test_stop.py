"""Runs that are stopped by their callback or by Ctrl-C give back what they have, and it satisfies its constraint."""

import gc
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from constraints import Length, Regex, Reward, Words
from guided_dlm import Constraint, GuidedPipeline
from guided_dlm.denoisers import Denoiser, TabularDenoiser
from guided_dlm.processes import GaussianProcess, MaskedProcess, UniformProcess
from guided_dlm.samplers import STOP, Snapshot
from guided_dlm.vocabulary import Vocabulary
from tests.tiny import tiny_pipeline

VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"c", b"</s>", b"<pad>", b"<mask>"], eos_id=3, pad_id=4, mask_id=5)
LENGTH = 6


def denoiser_of(process: Any, length: int = LENGTH) -> Denoiser:
    """Any joint will do; it is far from satisfying what is asked for."""
    joint = torch.rand([6] * length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joint[..., 5] = 0.0
    return TabularDenoiser(joint / joint.sum(), VOCABULARY, process=process)


PROCESSES = {
    "masked": MaskedProcess(mask_id=5),
    "uniform": UniformProcess(size=6, token_ids=(0, 1, 2, 3, 4)),
    "gaussian": GaussianProcess(embeddings_VD=torch.eye(6, dtype=torch.float64)),
}
WISH = Regex("(ab|ba)+c") & Length(characters=(3, 5))


def stop_at(step: int) -> Callable[[Snapshot], str | None]:
    return lambda snapshot: STOP if snapshot.at.index == step else None


def press_at(step: int) -> Callable[[Snapshot], None]:
    def press(snapshot: Snapshot) -> None:
        if snapshot.at.index == step:
            raise KeyboardInterrupt

    return press


@pytest.mark.parametrize("how", [stop_at, press_at], ids=["callback", "ctrl-c"])
@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_a_stopped_run_gives_back_texts_that_satisfy(process: str, step: int, how: Callable[[int], Any]) -> None:
    pipeline = GuidedPipeline(denoiser_of(PROCESSES[process]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Ctrl-C ended the run early")
        out = pipeline(constraint=WISH, num_samples=4, max_new_tokens=LENGTH, steps=6, callback=how(step))
    assert len(out) == 4 and bool(out.satisfied.all()) and bool(out.truncated.all()) and out.stopped
    assert out.denoiser_calls == step + 1


@pytest.mark.parametrize("sampler", ["confidence", "ancestral", "llada"])
def test_what_was_written_stays(sampler: str) -> None:
    pipeline, seen = GuidedPipeline(denoiser_of(PROCESSES["masked"])), []

    def callback(snapshot: Snapshot) -> str | None:
        seen.append(snapshot.after)
        return STOP if snapshot.at.index == 1 else None

    out = pipeline(constraint=WISH, num_samples=4, max_new_tokens=LENGTH, steps=4, sampler=sampler, callback=callback)
    written_BL = seen[-1].tokens_BL != 5
    assert bool(written_BL.any()) and not bool(written_BL.all())
    assert torch.equal(out.tokens[written_BL], seen[-1].tokens_BL[written_BL])


def test_the_rest_is_the_likeliest() -> None:
    """Among all texts that satisfy and agree with what was written, it is the one with the largest product."""
    seen: list[Snapshot] = []

    def callback(snapshot: Snapshot) -> str:
        seen.append(snapshot)
        return STOP

    out = GuidedPipeline(denoiser_of(PROCESSES["masked"]))(
        constraint=WISH, num_samples=20, max_new_tokens=LENGTH, steps=LENGTH, sampler="random", callback=callback
    )
    automaton = WISH.compile(GuidedPipeline(denoiser_of(PROCESSES["masked"])).context(LENGTH)).automaton
    assert automaton is not None
    texts = [list(text) for text in itertools.product(range(5), repeat=LENGTH) if automaton.accepts(text)]
    logits_BLV = seen[0].logits_BLV
    for row, known in enumerate(seen[0].after.tokens_BL.tolist()):
        fits = [text for text in texts if all(k in (5, v) for k, v in zip(known, text, strict=True))]
        score = [float(sum(logits_BLV[row, i, v] for i, v in enumerate(text))) for text in fits]
        assert out.tokens[row].tolist() == fits[score.index(max(score))]


@pytest.mark.parametrize("constraint", [None, Length(words=(4, 9)), Words(include=["pub"])])
def test_blocks_complete_what_was_not_begun(constraint: Constraint | None) -> None:
    pipeline = tiny_pipeline(canvas=12)
    for step in range(4):
        calls: list[int] = []

        def callback(snapshot: Snapshot, step: int = step, calls: list[int] = calls) -> str | None:
            calls.append(1)
            return STOP if len(calls) == step + 1 else None

        out = pipeline(
            constraint=constraint, num_samples=3, max_new_tokens=12, steps=2, block_length=4, callback=callback
        )
        assert bool(out.satisfied.all()) and out.tokens.shape == (3, 12)
        assert bool(out.truncated.all()) and out.denoiser_calls == step + 1


def test_blocks_end_with_the_last_text() -> None:
    """Once every row has its end, nothing is left to ask the model."""
    wish = Length(words=(1, 2), tokens=(1, 3))
    out = tiny_pipeline(canvas=12)(constraint=wish, num_samples=3, max_new_tokens=12, steps=2, block_length=4)
    assert bool(out.satisfied.all()) and not bool(out.truncated.any())
    assert out.tokens.shape == (3, 12) and out.denoiser_calls == 2


def test_particles_that_stop_have_no_normaliser() -> None:
    pipeline = GuidedPipeline(denoiser_of(PROCESSES["masked"]))
    wish = WISH & Reward(lambda texts: [float(len(text)) for text in texts])
    whole = pipeline(constraint=wish, num_samples=2, particles=3, max_new_tokens=LENGTH, steps=6)
    out = pipeline(constraint=wish, num_samples=2, particles=3, max_new_tokens=LENGTH, steps=6, callback=stop_at(2))
    assert len(out) == 2 and bool(out.satisfied.all()) and bool(out.truncated.all())
    assert out.log_weights is not None and bool(out.log_weights.isnan().all())
    assert whole.log_weights is not None and not bool(whole.log_weights.isnan().any())


def test_rows_that_were_not_begun_are_left_out_with_a_warning() -> None:
    pipeline = GuidedPipeline(denoiser_of(PROCESSES["masked"]))
    arguments: dict[str, Any] = {"num_samples": 5, "max_new_tokens": LENGTH, "steps": 4, "batch_size": 2}
    whole = pipeline(constraint=WISH, **arguments)
    begun: list[int] = []

    def second_batch(snapshot: Snapshot) -> str | None:
        begun.append(snapshot.at.index)
        return STOP if begun.count(0) == 2 else None

    with pytest.warns(UserWarning, match="rows 0 to 3 came back, and 1 of 5"):
        out = pipeline(constraint=WISH, callback=second_batch, return_trace=True, **arguments)
    assert len(out) == 4 == len(out.report) and out.texts[:2] == whole.texts[:2]
    assert out.truncated.tolist()[:2] == whole.truncated.tolist()[:2]
    assert bool(out.satisfied.all()) and out.trace is not None and len(out.trace.steps[-1].tokens_BL) == 4


def test_ctrl_c_says_so() -> None:
    pipeline = GuidedPipeline(denoiser_of(PROCESSES["masked"]))
    with pytest.warns(UserWarning, match=r"Ctrl-C ended the run early; out\.truncated"):
        pipeline(constraint=WISH, max_new_tokens=LENGTH, steps=6, callback=press_at(1))


@pytest.mark.parametrize("how", [stop_at, press_at], ids=["callback", "ctrl-c"])
@pytest.mark.parametrize(("process", "particles"), [("masked", 1), ("masked", 3), ("uniform", 1)])
def test_a_stop_at_the_last_step_keeps_that_batch_and_begins_no_other(
    process: str, how: Callable[[int], Any], particles: int
) -> None:
    pipeline = GuidedPipeline(denoiser_of(PROCESSES[process]))
    arguments: dict[str, Any] = {"constraint": WISH, "num_samples": 6, "max_new_tokens": LENGTH, "steps": LENGTH}
    arguments |= {"batch_size": 2 * particles, "particles": particles, "sampler": "ancestral"}
    whole, seen = pipeline(**arguments), []

    def callback(snapshot: Snapshot) -> Any:
        seen.append(snapshot.at.index)
        return how(LENGTH - 1)(snapshot)

    with pytest.warns(UserWarning, match="rows 0 to 1 came back, and 4 of 6"):
        out = pipeline(callback=callback, **arguments)
    assert seen.count(0) == 1 and out.stopped
    assert out.texts == whole.texts[:2] and torch.equal(out.truncated, whole.truncated[:2])
    assert out.log_weights is not None and whole.log_weights is not None
    assert torch.equal(out.log_weights, whole.log_weights[:2])


def test_rows_that_were_finished_are_not_called_truncated() -> None:
    """Of a batch that is stopped only the rows count that still had something to write."""
    pipeline, seen = GuidedPipeline(denoiser_of(PROCESSES["masked"])), []

    def callback(snapshot: Snapshot) -> str | None:
        seen.append(snapshot.after.tokens_BL)
        return STOP if snapshot.at.index == 2 else None

    out = pipeline(
        constraint=WISH, num_samples=40, max_new_tokens=LENGTH, steps=4, sampler="ancestral", callback=callback
    )
    open_B = (seen[-1] == 5).any(-1)
    assert bool(open_B.any()) and not bool(open_B.all())
    full_B = torch.tensor([VOCABULARY.text_length(row) == LENGTH for row in out.tokens.tolist()])
    assert torch.equal(out.truncated, open_B | full_B) and out.stopped
    assert bool(out.satisfied.all())


def test_blocks_that_all_ended_are_whole_when_they_are_stopped() -> None:
    wish = Length(words=(1, 2), tokens=(1, 3))
    free = tiny_pipeline(canvas=12)(constraint=wish, num_samples=3, max_new_tokens=12, steps=2, block_length=4)
    out = tiny_pipeline(canvas=12)(
        constraint=wish, num_samples=3, max_new_tokens=12, steps=2, block_length=4, callback=stop_at(1)
    )
    assert out.texts == free.texts and not bool(out.truncated.any()) and not out.stopped


def test_ctrl_c_before_the_first_step_is_an_interrupt() -> None:
    class Slow(TabularDenoiser):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    joint = torch.full([6] * 2, 1 / 36, dtype=torch.float64)
    with pytest.raises(KeyboardInterrupt):
        GuidedPipeline(Slow(joint, VOCABULARY, process=PROCESSES["masked"]))(max_new_tokens=2, steps=2)


def test_other_answers_and_the_last_step_do_not_stop() -> None:
    pipeline = GuidedPipeline(denoiser_of(PROCESSES["uniform"]))
    arguments: dict[str, Any] = {"constraint": WISH, "num_samples": 4, "max_new_tokens": LENGTH, "steps": 4}
    whole = pipeline(**arguments)
    for callback in (lambda snapshot: True, lambda snapshot: snapshot.after.tokens_BL, stop_at(3)):
        out = pipeline(callback=callback, **arguments)
        assert out.texts == whole.texts and torch.equal(out.truncated, whole.truncated) and not out.stopped


def test_memory_of_many_steps_is_flat() -> None:
    """No tensor outlives its step: what is alive after a thousand steps is what was alive after ten."""

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts: list[int] = []

    def callback(snapshot: Snapshot) -> None:
        if snapshot.at.index in (10, 500, 990):
            counts.append(alive())

    pipeline = GuidedPipeline(denoiser_of(PROCESSES["gaussian"], length=2))
    pipeline(constraint=Length(characters=(1, 2)), max_new_tokens=2, steps=1000, callback=callback)
    assert len(counts) == 3 and max(counts) - min(counts) <= 2
