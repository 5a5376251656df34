"""Judges of fluency against sums by hand, and diversity of texts whose figures are known."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import SENTENCES, tiny_pipeline, word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from constraints import Reward
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.fluency import Judge, diversity


def own(folder: Path, causal: bool = True) -> DiffusionTransformer:
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    config = DiffusionTransformerConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, causal=causal, mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = DiffusionTransformer(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def foreign(folder: Path) -> LlamaForCausalLM:
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@torch.no_grad()
def test_a_judge_of_our_own_counts_each_token_and_the_end(tmp_path: Path) -> None:
    model, tokenizer = own(tmp_path), word_tokenizer()
    total, count = 0.0, 0
    for text in SENTENCES:
        ids = torch.tensor([[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]])
        log_p = model(input_ids=ids).logits.log_softmax(-1).gather(-1, ids[..., None])
        total, count = total - float(log_p.sum()), count + ids.shape[1]
    assert Judge(tmp_path).nll(SENTENCES) == pytest.approx(total / count, abs=1e-5)


@torch.no_grad()
def test_any_causal_model_judges_the_text_after_its_start(tmp_path: Path) -> None:
    model, tokenizer = foreign(tmp_path), word_tokenizer()
    total, count = 0.0, 0
    for text in SENTENCES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        begun = torch.tensor([[tokenizer.eos_token_id, *ids]])
        log_p = model(input_ids=begun).logits.log_softmax(-1)[0, :-1]
        total -= float(log_p[torch.arange(len(ids)), torch.tensor(ids)].sum())
        count += len(ids)
    judge = Judge(tmp_path)
    assert judge.nll(SENTENCES) == pytest.approx(total / count, abs=1e-5)
    longest = max(SENTENCES, key=len)
    assert judge.nll([longest]) == pytest.approx(judge.nll([longest, longest]), abs=1e-5)


def test_a_judge_refuses_what_it_cannot_score(tmp_path: Path) -> None:
    own(tmp_path / "masked", causal=False)
    foreign(tmp_path / "llama")
    with pytest.raises(InvalidRequest, match=r"not autoregressive"):
        Judge(tmp_path / "masked")
    with pytest.raises(InvalidRequest, match=r"There is no judge"):
        Judge(tmp_path)
    with pytest.raises(InvalidRequest, match=r"1 of 2 texts are empty"):
        Judge(tmp_path / "llama").nll(["good", " "])
    with pytest.raises(InvalidRequest, match=r"1 of 1 texts are too long"):
        Judge(tmp_path / "llama").nll([" ".join(SENTENCES * 20)])


def test_diversity_of_one_text_repeated_and_of_texts_that_share_nothing() -> None:
    same, apart = diversity(["a b c d e"] * 3), diversity(["a b c d e", "f g h i j"])
    assert (same.texts, same.unigrams, same.bigrams, same.trigrams) == pytest.approx((1 / 3, 1 / 3, 1 / 3, 1 / 3))
    assert same.self_bleu == pytest.approx(1.0)
    assert (apart.texts, apart.unigrams, apart.bigrams, apart.trigrams, apart.self_bleu) == (1.0, 1.0, 1.0, 1.0, 0.0)
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 fours are shared, one added from pairs on.
    near = diversity(["a b c d e", "a b c d f"]).self_bleu
    assert near == pytest.approx((4 / 5 * (3 + 1) / (4 + 1) * (2 + 1) / (3 + 1) * (1 + 1) / (2 + 1)) ** 0.25)
    assert diversity(["alone"]).self_bleu == 0.0


@torch.no_grad()
@pytest.mark.parametrize("kind", [own, foreign])
def test_log_p_of_texts_adds_up_to_their_nll_and_does_not_depend_on_the_batch(
    tmp_path: Path, kind: Callable[[Path], object]
) -> None:
    kind(tmp_path)
    judge = Judge(tmp_path)
    together = judge.log_p(SENTENCES)
    assert together == pytest.approx([judge.log_p([text])[0] for text in SENTENCES], abs=1e-4)
    ends = len(SENTENCES) if kind is own else 0
    tokens = ends + sum(len(word_tokenizer()(text, add_special_tokens=False)["input_ids"]) for text in SENTENCES)
    assert -sum(together) / tokens == pytest.approx(judge.nll(SENTENCES), abs=1e-5)
    assert judge.log_p([""])[0] == 0.0 if kind is foreign else judge.log_p([""])[0] < 0.0


def test_log_p_is_a_reward_that_a_search_follows(tmp_path: Path) -> None:
    foreign(tmp_path)
    judge, pipe = Judge(tmp_path), tiny_pipeline()
    plain = pipe(num_samples=8, steps=4, seed=1).texts
    found = pipe(constraint=Reward(judge.log_p), num_samples=8, steps=4, seed=1, particles=6, resampling="search").texts
    assert sum(judge.log_p(found)) > sum(judge.log_p(plain))
