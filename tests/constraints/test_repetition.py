"""Repetition: what counts as a copy, against a count by hand."""

import pytest
import torch

from constraints import Repetition
from guided_dlm import CompileContext, Step, Vocabulary
from guided_dlm.errors import InvalidRequest


def count_by_hand(known: list[int], place: int, token: int, size: int) -> int:
    """How many written copies of the n-gram there are that this token would complete at either of its ends."""
    found = 0
    for step in (1, -1):
        if size == 1 and step == -1:
            continue
        before = [place - step * k for k in range(1, size)]
        if any(not 0 <= p < len(known) or known[p] < 0 for p in before):
            continue
        for other in range(len(known)):
            there = [other - step * k for k in range(1, size)]
            if other == place or known[other] != token or any(not 0 <= p < len(known) for p in there):
                continue
            found += all(known[p] == known[q] for p, q in zip(before, there, strict=True))
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repetition_counts_the_copies_that_a_token_would_complete(size: int) -> None:
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b""], eos_id=None, mask_id=2)
    generator = torch.Generator().manual_seed(size)
    known = torch.randint(-1, 2, (20, 9), generator=generator)
    guide = Repetition(max_ngram=size, strength=2.0).compile(CompileContext(vocabulary=vocabulary, length=9))
    assert guide.bias is not None
    step = Step(index=0, total=1, time=1.0, tokens_BL=known.masked_fill(known < 0, 2), known_BL=known)
    bias_BLV = guide.bias(step)
    for row in range(20):
        for place in range(9):
            for token in range(2):
                expected = -2.0 * count_by_hand(known[row].tolist(), place, token, size)
                assert float(bias_BLV[row, place, token]) == expected
    assert not bool(bias_BLV[..., 2].any())


def test_an_ngram_longer_than_the_canvas_repeats_nowhere() -> None:
    vocabulary = Vocabulary.from_tokens([b"a", b""], eos_id=None, mask_id=1)
    guide = Repetition(max_ngram=6).compile(CompileContext(vocabulary=vocabulary, length=3))
    assert guide.bias is not None
    known = torch.zeros(1, 3, dtype=torch.int64)
    assert not bool(guide.bias(Step(index=0, total=1, time=1.0, tokens_BL=known, known_BL=known)).any())


def test_repetition_scores_repeated_ngrams() -> None:
    assert Repetition(max_ngram=2).check("a b a b c") == -1.0
    assert Repetition(max_ngram=1).check("x", [1, 2, 1, 1]) == -2.0
    with pytest.raises(InvalidRequest, match=r"at least 1"):
        Repetition(max_ngram=0)
