"""The losses against sums by hand and by enumeration."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from guided_dlm.training import objectives
from guided_dlm.training.objectives import (
    any_order,
    autoregressive,
    cross_entropy,
    left_to_right,
    length_first,
    length_nll,
    masked,
    weighted_nll,
)
from guided_dlm.training.trainer import evaluate_autoregressive, evaluate_masked

MASK, SIZE = 3, 4


class Oracle:
    """Answers with the exact conditionals of a joint over 3 tokens, for any masked canvas."""

    def __init__(self, length: int, seed: int = 0) -> None:
        weights = torch.randn([3] * length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.joint = (2 * weights).exp() / (2 * weights).exp().sum()
        self.config = SimpleNamespace(mask_token_id=MASK, max_position_embeddings=length, causal=False)
        self.device = torch.device("cpu")
        self.every = torch.tensor(list(itertools.product(range(3), repeat=length)))

    def eval(self) -> None:
        pass

    def log_p(self, tokens_L: Tensor) -> float:
        return math.log(float(self.joint[tuple(tokens_L.tolist())]))

    def __call__(self, input_ids: Tensor) -> Any:
        rows = []
        for canvas in input_ids:
            fits = ((self.every == canvas) | (canvas == MASK)).all(1)
            mass = self.joint.flatten() * fits
            onehot = torch.nn.functional.one_hot(self.every, SIZE).double()
            rows.append(torch.einsum("n,nlv->lv", mass / mass.sum(), onehot).log())
        return SimpleNamespace(logits=torch.stack(rows).float())


def exact_loss(model: Oracle, tokens_L: Tensor, size: int) -> float:
    """Size times the mean over k, and over the sets of k of the first `size` positions, of their mean cross entropy.

    What comes after `size` is known throughout. All sets are listed.
    """
    total = 0.0
    for k in range(1, size + 1):
        sets = list(itertools.combinations(range(size), k))
        for hidden in sets:
            canvas = tokens_L.clone()
            canvas[list(hidden)] = MASK
            log_p = model(canvas[None]).logits[0].log_softmax(-1)
            total += sum(-float(log_p[i, tokens_L[i]]) for i in hidden) / k / len(sets)
    return total


@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_bound_of_an_exact_model_is_the_log_probability(length: int) -> None:
    """Any order of unmasking multiplies up to the joint, so the bound is tight."""
    model = Oracle(length)
    for tokens_L in model.every[:: max(1, len(model.every) // 5)]:
        assert exact_loss(model, tokens_L, length) == pytest.approx(-model.log_p(tokens_L), abs=1e-5)


TOKENS_BL = torch.tensor([[0, 1, 2], [1, 2, 2], [2, 2, 2], [0, 2, 2]])  # 2 is both end and padding here
LENGTH_B = torch.tensor([3, 2, 1, 2])
MODEL = Oracle(3, seed=1)


def check_means(draw: Callable[[], Tensor], sizes: list[int]) -> None:
    """The mean of many draws is the exact loss, row by row, within 4.5 standard errors."""
    draws = torch.stack([draw() for _ in range(1500)])
    for row, size in enumerate(sizes):
        exact = exact_loss(MODEL, TOKENS_BL[row], size)
        error = float(draws[:, row].std() / math.sqrt(len(draws))) + 1e-5
        assert float(draws[:, row].mean()) == pytest.approx(exact, abs=4.5 * error)


@pytest.mark.parametrize(("orders", "sizes"), [(any_order, [3, 3, 3, 3]), (length_first, [2, 1, 0, 1])])
def test_each_set_of_orders_is_sampled_without_bias_for_every_row(orders: Any, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    check_means(lambda: weighted_nll(MODEL, TOKENS_BL, *orders(TOKENS_BL, LENGTH_B, generator)).sum(-1), sizes)


def test_half_of_the_canvases_are_hidden_in_any_order_and_half_after_their_length() -> None:
    generator = torch.Generator().manual_seed(0)
    check_means(lambda: masked(MODEL, TOKENS_BL, LENGTH_B, generator), [3, 1, 3, 1])


def test_from_left_to_right_a_token_at_a_time_the_mean_is_the_log_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "AHEAD", 1)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([masked(MODEL, TOKENS_BL, LENGTH_B, generator, onward=1.0) for _ in range(1500)])
    for row, length in enumerate(LENGTH_B.tolist()):
        exact = -math.log(float(MODEL.joint[tuple(TOKENS_BL[row, :length].tolist())].sum()))
        error = float(draws[:, row].std() / math.sqrt(len(draws))) + 1e-5
        assert float(draws[:, row].mean()) == pytest.approx(exact, abs=4.5 * error)


def test_from_left_to_right_all_is_hidden_from_a_place_on_and_the_next_tokens_weigh_what_the_text_does() -> None:
    tokens_BL, begin_B, length_B = (
        torch.zeros(64, 12, dtype=torch.long),
        torch.tensor([0, 3] * 32),
        torch.tensor([9, 8] * 32),
    )
    hidden_BL, weight_BL = left_to_right(tokens_BL, length_B, torch.Generator().manual_seed(0), begin_B)
    cut_B = 12 - hidden_BL.sum(-1)
    assert torch.equal(hidden_BL, torch.arange(12) >= cut_B[:, None])
    assert [sorted(set(cut_B[i::2].tolist())) for i in (0, 1)] == [list(range(9)), list(range(3, 8))]
    for cut, length, begin, weight_L in zip(
        cut_B.tolist(), length_B.tolist(), begin_B.tolist(), weight_BL, strict=True
    ):
        scored = range(cut, min(cut + objectives.AHEAD, length))
        assert weight_L.nonzero()[:, 0].tolist() == list(scored)
        torch.testing.assert_close(weight_L[scored], torch.full((len(scored),), (length - begin) / len(scored)))


def test_a_flat_weight_counts_each_hidden_token_twice_and_is_about_as_much_on_average() -> None:
    tokens_BL, length_B = torch.zeros(4000, 6, dtype=torch.long), torch.full((4000,), 6)
    model = Fixed(torch.zeros(4000, 6, SIZE))
    loss_B = masked(model, tokens_BL, length_B, torch.Generator().manual_seed(0), weighting="flat")
    hidden_B = (model.seen[0] == MASK).sum(-1)
    torch.testing.assert_close(loss_B, 2 * math.log(SIZE) * hidden_B)
    bound_B = masked(model, tokens_BL, length_B, torch.Generator().manual_seed(0))
    # k is uniform in 1..size: 2 k is size + 1 on average, and the bound's total is size.
    assert float(loss_B[0::2].mean() / bound_B[0::2].mean()) == pytest.approx(7 / 6, rel=0.03)


def test_a_share_of_the_canvases_is_hidden_from_left_to_right() -> None:
    model, rows = Fixed(torch.zeros(4000, 4, SIZE)), 4000
    masked(
        model,
        torch.zeros(rows, 4, dtype=torch.long),
        torch.full((rows,), 4),
        torch.Generator().manual_seed(0),
        onward=0.6,
    )
    hidden_BL = model.seen[0] == MASK
    suffix_B = (hidden_BL[:, 1:] >= hidden_BL[:, :-1]).all(-1) & hidden_BL[:, -1]
    # By chance a set of k of 4 positions is a suffix in 1, 1/4, 1/6, 1/4 of the draws; after the length never.
    by_chance = (1 + 1 / 4 + 1 / 6 + 1 / 4) / 4 / 2
    assert float(suffix_B.float().mean()) == pytest.approx(0.6 + 0.4 * by_chance, abs=0.03)


def test_the_length_is_paid_for_by_where_the_end_stands_on_an_empty_canvas() -> None:
    logits_BLV = torch.randn(2, 4, SIZE, generator=torch.Generator().manual_seed(0))
    model = Fixed(logits_BLV)
    nll_B = length_nll(model, torch.tensor([[0, 1, 2, 1], [2, 1, 1, 1]]), torch.tensor([3, 1]), eos_id=2)
    end_BL = logits_BLV.softmax(-1)[..., 2]
    torch.testing.assert_close(nll_B, -(end_BL[[0, 1], [2, 0]] / end_BL.sum(-1)).log())
    assert (model.seen[0] == MASK).all()


@pytest.mark.parametrize(("positions", "size"), [(any_order, 4), (length_first, 5)])
def test_every_row_sees_every_noise_level_and_a_batch_sees_them_evenly(positions: Any, size: int) -> None:
    """Also where the rows are sorted, as batches grouped by length are."""
    generator = torch.Generator().manual_seed(0)
    tokens_BL = torch.zeros(8, size, dtype=torch.long)
    length_B = torch.full((8,), size)
    counts = torch.stack([positions(tokens_BL, length_B, generator)[0].sum(-1) for _ in range(400)])
    assert (counts.sort(-1).values == torch.tensor([1, 1, 2, 2, 3, 3, 4, 4])).all()
    for row in range(8):
        share = torch.bincount(counts[:, row], minlength=5)[1:] / 400
        assert (share - 0.25).abs().max() < 0.1


def test_hidden_positions_are_uniform_and_only_they_are_weighed() -> None:
    tokens_BL = torch.randint(0, 3, (512, 5), generator=torch.Generator().manual_seed(1))
    length_B = torch.full((512,), 5)
    hidden_BL, weight_BL = any_order(tokens_BL, length_B, torch.Generator().manual_seed(2))
    assert torch.equal(weight_BL > 0, hidden_BL)
    assert ((hidden_BL.float().mean(0) - 0.6).abs() < 0.1).all()
    torch.testing.assert_close(weight_BL.sum(-1), torch.full((512,), 5.0))


def test_end_and_tail_are_known_while_the_text_is_hidden() -> None:
    tokens_BL, length_B = torch.zeros(64, 6, dtype=torch.long), torch.tensor([1, 3, 6, 4] * 16)
    hidden_BL, weight_BL = length_first(tokens_BL, length_B, torch.Generator().manual_seed(0))
    text_BL = torch.arange(6) < length_B[:, None] - 1
    assert not hidden_BL[~text_BL].any()
    assert hidden_BL.any(-1).equal(length_B > 1)
    assert not hidden_BL[text_BL].all()
    torch.testing.assert_close(weight_BL.sum(-1), length_B.float() - 1)


def test_the_model_sees_masks_where_tokens_are_hidden_and_nothing_else_changed() -> None:
    model = Fixed(torch.zeros(4, 4, SIZE))
    hidden_BL, weight_BL = any_order(TOKENS_BL, LENGTH_B, torch.Generator().manual_seed(3))
    weighted_nll(model, TOKENS_BL, hidden_BL, weight_BL)
    (seen,) = model.seen
    assert torch.equal(seen == MASK, hidden_BL)
    assert torch.equal(seen[~hidden_BL], TOKENS_BL[~hidden_BL])


def test_hiding_repeats_with_its_generator() -> None:
    first, second = (any_order(TOKENS_BL, LENGTH_B, torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(first, second)


class Fixed:
    """Answers with given logits, whatever the input."""

    def __init__(self, logits_BLV: Tensor) -> None:
        self.logits = logits_BLV
        self.config = SimpleNamespace(mask_token_id=MASK, max_position_embeddings=4, causal=True)
        self.device = torch.device("cpu")
        self.seen: list[Tensor] = []

    def eval(self) -> None:
        pass

    def __call__(self, input_ids: Tensor) -> Any:
        self.seen.append(input_ids)
        return SimpleNamespace(logits=self.logits[: len(input_ids), : input_ids.shape[1]])


def test_the_autoregressive_loss_is_a_sum_by_hand_and_ignores_the_tail() -> None:
    logits_BLV = torch.randn(2, 4, SIZE, generator=torch.Generator().manual_seed(0))
    tokens_BL, length_B = torch.tensor([[0, 1, 2, 2], [1, 2, 2, 2]]), torch.tensor([3, 2])
    loss_B = autoregressive(Fixed(logits_BLV), tokens_BL, length_B, None)
    log_p = logits_BLV.log_softmax(-1)
    by_hand = [-(log_p[0, 0, 0] + log_p[0, 1, 1] + log_p[0, 2, 2]), -(log_p[1, 0, 1] + log_p[1, 1, 2])]
    torch.testing.assert_close(loss_B, torch.stack(by_hand))
    changed = logits_BLV.clone()
    changed[0, 3:] += 7 * torch.randn(1, SIZE)
    changed[1, 2:] -= 9 * torch.randn(2, SIZE)
    assert torch.equal(autoregressive(Fixed(changed), tokens_BL, length_B, None), loss_B)


def test_cross_entropy_is_in_nats_and_float32() -> None:
    loss = cross_entropy(torch.zeros(1, 2, 8, dtype=torch.bfloat16), torch.tensor([[3, 4]]))
    assert loss.dtype == torch.float32
    assert loss.flatten().tolist() == pytest.approx([math.log(8)] * 2)


def test_the_validation_figure_of_an_autoregressive_model_is_per_token_of_text_and_end() -> None:
    model = Fixed(torch.zeros(8, 4, SIZE))
    examples = [{"input_ids": [0, 1, 2], "length": 3}, {"input_ids": [2], "length": 1}]
    assert evaluate_autoregressive(model, examples, pad_id=2) == pytest.approx(math.log(SIZE))


def test_the_validation_bounds_approach_the_exact_ones() -> None:
    model = Oracle(3, seed=2)
    model.config.eos_token_id = 1
    examples = [{"input_ids": [0, 1], "length": 2}, {"input_ids": [2, 0, 1], "length": 3}]
    canvases = torch.tensor([[0, 1, 2], [2, 0, 1]])
    found = evaluate_masked(model, examples, pad_id=2, passes=600)
    assert found["bound"] == pytest.approx(sum(-model.log_p(canvas) for canvas in canvases) / 5, rel=0.03)
    end_L = torch.stack([model.joint.select(place, 1).sum() for place in range(3)])
    length_cost = -(end_L[1] / end_L.sum()).log() - (end_L[2] / end_L.sum()).log()
    text_cost = sum(exact_loss(model, canvas, size) for canvas, size in zip(canvases, (1, 2), strict=True))
    assert found["length_first_bound"] == pytest.approx((float(length_cost) + text_cost) / 5, rel=0.03)
    assert evaluate_masked(model, examples, pad_id=2, passes=3) == evaluate_masked(model, examples, pad_id=2, passes=3)
