"""The reader's network, and the probability that an automaton accepts tags that it gives."""

import itertools

import numpy as np
import pytest
import torch

from guided_dlm.automata import ByteAutomaton
from guided_dlm.parsing.reader import SyntaxReader, SyntaxReaderConfig, log_accepted, log_straight, straight

PATTERNS = ["ab*", "a|bab", "(ab|ba)*", "c*", "a.b"]


def automaton(pattern: str) -> tuple[torch.Tensor, torch.Tensor, ByteAutomaton]:
    found = ByteAutomaton.from_regex(pattern)
    columns = found.byte_class.astype("int64")[[ord(letter) for letter in "abc"]]
    return torch.from_numpy(found.table[:, columns]).long(), torch.tensor(found.accepting), found


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_probability_is_the_sum_over_all_taggings_that_are_accepted(pattern: str, length: int) -> None:
    table_ST, accepting_S, byte_automaton = automaton(pattern)
    log_p_BLT = torch.randn(2, length, 4, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    log_p_BLT = log_p_BLT.log_softmax(-1)
    expected_B = torch.zeros(2, dtype=torch.float64)
    for written in range(length + 1):
        for tags in itertools.product(range(3), repeat=written):
            if byte_automaton.accepts("".join("abc"[tag] for tag in tags).encode()):
                classes = [*tags, *[3] * (length - written)]
                expected_B += log_p_BLT[:, range(length), classes].sum(-1).exp()
    found_B = log_accepted(log_p_BLT, table_ST, accepting_S)
    assert torch.allclose(found_B.exp(), expected_B, rtol=1e-9, atol=0)


@pytest.mark.parametrize("pattern", ["a", "abc", "a[bc]a", "[abc][ab]"])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_straight_pattern_needs_no_product(pattern: str, length: int) -> None:
    table_ST, accepting_S, _ = automaton(pattern)
    places_NT = straight(table_ST, accepting_S)
    assert places_NT is not None
    log_p_BLT = torch.randn(2, length, 4, generator=torch.Generator().manual_seed(length)).log_softmax(-1)
    log_p_BLT = log_p_BLT.requires_grad_()
    expected_B = log_accepted(log_p_BLT, table_ST, accepting_S)
    found_B = log_straight(log_p_BLT, places_NT)
    torch.testing.assert_close(found_B, expected_B, rtol=1e-5, atol=1e-5)
    if len(places_NT) <= length:
        (gradient,), (wanted,) = (torch.autograd.grad(sum_B.sum(), log_p_BLT) for sum_B in (found_B, expected_B))
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", [*PATTERNS, "ab?", "a+"])
def test_other_patterns_are_not_straight(pattern: str) -> None:
    table_ST, accepting_S, _ = automaton(pattern)
    assert (straight(table_ST, accepting_S) is None) == (pattern != "a.b")


def test_long_and_unlikely_patterns_stay_finite_and_have_a_gradient() -> None:
    table_ST, accepting_S, _ = automaton("(ab)*")
    log_p_BLT = torch.tensor([1e-3, 1e-3, 0.998 - 1e-3, 1e-3]).log().expand(1, 256, 4).clone().requires_grad_()
    found_B = log_accepted(log_p_BLT, table_ST, accepting_S)
    assert float(found_B.detach()) == pytest.approx(256 * np.log(1e-3) + np.log(129), rel=1e-5)
    (gradient_BLT,) = torch.autograd.grad(found_B.sum(), log_p_BLT)
    # d log p / d log p(tag) is how likely the place bears that tag where the pattern holds; over tags they sum to 1.
    assert torch.allclose(gradient_BLT.sum(-1), torch.ones(1, 256), atol=1e-4)
    assert float(gradient_BLT[0, :, 2].abs().max()) == 0.0


def tiny_reader() -> SyntaxReader:
    torch.manual_seed(0)
    config = SyntaxReaderConfig(
        tag_sets={"universal": ["NOUN", "VERB"]}, labels=["NP", "S"], span_size=3, vocab_size=11, hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=8,
    )  # fmt: skip
    return SyntaxReader(config).eval()


def test_a_reader_reads_tokens_and_their_embeddings_alike_and_is_saved(tmp_path: object) -> None:
    reader = tiny_reader()
    ids_BL = torch.tensor([[1, 4, 2, 9], [3, 3, 10, 0]])
    reading = reader(input_ids=ids_BL)
    assert reading.tags["universal"].shape == (2, 4, 3) and reading.spans_BLLK.shape == (2, 4, 4, 2)
    embedded = reader(inputs_embeds=reader.get_input_embeddings()(ids_BL))
    assert torch.allclose(reading.spans_BLLK, embedded.spans_BLLK, atol=1e-6)
    reader.save_pretrained(str(tmp_path))
    again = SyntaxReader.from_pretrained(str(tmp_path)).eval()
    assert again.config.tag_sets == reader.config.tag_sets and again.config.labels == ["NP", "S"]
    assert torch.allclose(again(input_ids=ids_BL).tags["universal"], reading.tags["universal"], atol=1e-6)


def test_some_spans_alone_have_the_logits_that_they_have_among_all() -> None:
    reading = tiny_reader()(input_ids=torch.tensor([[1, 4, 2, 9], [3, 3, 10, 0]]))
    first_M, last_M, label_M = torch.tensor([[0, 1, 2], [3, 1, 3], [1, 0, 1]])
    expected_BM = reading.spans_BLLK[:, first_M, last_M, label_M]
    torch.testing.assert_close(reading.spans(first_M, last_M, label_M), expected_BM)


def test_what_is_not_read_changes_nothing_and_is_after_the_text() -> None:
    reader, ids_BL = tiny_reader(), torch.tensor([[1, 4, 2, 9, 9], [1, 4, 2, 7, 5]])
    read_BL = torch.tensor([[True, True, True, False, False]] * 2)
    masked, short = reader(input_ids=ids_BL, attention_mask=read_BL), reader(input_ids=ids_BL[:, :3])
    torch.testing.assert_close(masked.tags["universal"][:, :3], short.tags["universal"])
    torch.testing.assert_close(masked.spans_BLLK[:, :3, :3], short.spans_BLLK)
    p_BLT = masked.tags["universal"].detach().softmax(-1)
    assert bool((p_BLT[:, 3:, -1] == 1.0).all()) and float(p_BLT[:, :3, -1].max()) < 0.99
