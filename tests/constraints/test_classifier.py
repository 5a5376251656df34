"""Classifiers as people have them: transformers, scikit-learn, spaCy, functions; which way each is asked."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from tiny import SENTENCES, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification

from constraints import Classifier, Energy, Reward
from guided_dlm import CompileContext, Constraint, Step, Vocabulary
from guided_dlm.errors import InvalidRequest, NotSerializable, VocabularyMismatch
from guided_dlm.guidance import shift

TEXTS = ["a good place", "a bad place", "good good", "bad bad food"]


def bert(size: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def test_scikit_learn_is_asked_for_its_class_by_name() -> None:
    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(TEXTS, ["good", "bad", "good", "bad"])
    wish = Classifier(model, "good", strength=2.0)
    guide = wish.compile(CompileContext(vocabulary=Vocabulary.from_tokenizer(word_tokenizer()), length=4))
    assert guide.energy is None and guide.bias is None and guide.target is None and guide.reward is not None
    expected = np.log(model.predict_proba(["good food"])[0, list(model.classes_).index("good")])
    assert wish.check("good food") == pytest.approx(expected)
    assert float(guide.reward(["good food"], torch.zeros(1, 4))[0]) == pytest.approx(2 * expected)


def test_spacy_is_asked_for_its_category() -> None:
    nlp = spacy.blank("en")
    textcat = nlp.add_pipe("textcat")
    for label in ("GOOD", "BAD"):
        textcat.add_label(label)  # type: ignore[attr-defined]
    nlp.initialize()
    wish = Classifier(nlp, "GOOD")
    assert wish.check("fine") == pytest.approx(np.log(nlp("fine").cats["GOOD"]), abs=1e-6)
    with pytest.raises(InvalidRequest, match=r"categories are \['BAD', 'GOOD'\]"):
        Classifier(nlp, "FINE").check("fine")


def test_a_function_returns_scores_or_class_probabilities() -> None:
    assert Classifier(lambda texts: [-1.5 for _ in texts]).check("x") == -1.5
    assert Classifier(lambda texts: [[0.25, 0.75] for _ in texts], 1).check("x") == pytest.approx(np.log(0.75))
    with pytest.raises(InvalidRequest, match="with target="):
        Classifier(lambda texts: [[0.25, 0.75] for _ in texts]).check("x")


def test_a_transformers_model_with_these_tokens_is_differentiated_through_its_embeddings() -> None:
    tokenizer = word_tokenizer()
    vocabulary, model = Vocabulary.from_tokenizer(tokenizer), bert(len(tokenizer))
    context = CompileContext(vocabulary=vocabulary, length=5)
    guide = Classifier(model, "good", strength=3.0, tokenizer=tokenizer).compile(context)
    ids = torch.tensor([vocabulary.encode(SENTENCES[0])[:5]])
    onehot = torch.nn.functional.one_hot(ids, len(vocabulary)).float().requires_grad_()
    step = Step(index=0, total=1, time=1.0, tokens_BL=ids)
    assert guide.energy is not None and guide.reward is not None and guide.target is not None
    with torch.no_grad():
        expected = model(input_ids=ids).logits.log_softmax(-1)[0, 1]
    energy_B = guide.energy(onehot, step)
    assert float(energy_B[0].detach()) == pytest.approx(-3 * float(expected), abs=1e-5)
    assert bool(torch.autograd.grad(energy_B.sum(), onehot)[0].isfinite().all())
    assert float(guide.reward([SENTENCES[0]], ids)[0]) == pytest.approx(3 * float(expected), abs=1e-5)


def test_a_transformers_model_with_tokens_of_its_own_judges_texts_or_is_refused() -> None:
    tokenizer = word_tokenizer()
    other = Vocabulary.from_tokens([b"a", b"b", b""], eos_id=2)
    context = CompileContext(vocabulary=other, length=4)
    with pytest.raises(VocabularyMismatch, match="method='reward'"):
        Classifier(bert(len(tokenizer)), "good", tokenizer=tokenizer).compile(context)
    guide = Classifier(bert(len(tokenizer)), "good", tokenizer=tokenizer, method="reward").compile(context)
    assert guide.reward is not None and guide.energy is None
    reward_B = guide.reward([SENTENCES[0], SENTENCES[1]], torch.zeros(2, 4))
    assert reward_B.shape == (2,) and bool((reward_B < 0).all())
    with pytest.raises(InvalidRequest, match="give its tokenizer="):
        Classifier(bert(10), "good").compile(context)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"strength": float("inf")}, "strength=inf"),
        ({"strength": "much"}, "strength='much'"),
        ({"method": "magic"}, "choose one of auto, exact, relaxed"),
        ({"top_k": 0}, "1 or more"),
        ({"method": "exact"}, "give target="),
    ],
)
def test_a_classifier_that_cannot_be_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Classifier(lambda texts: [0.0], **fields)


def test_live_models_have_no_plain_config() -> None:
    wishes: list[Constraint] = [
        Classifier(lambda texts: [0.0]), Energy(lambda relaxed_BLV, step: relaxed_BLV.sum((1, 2))), Reward(len)
    ]  # fmt: skip
    for wish in wishes:
        with pytest.raises(NotSerializable, match="plain JSON cannot name"):
            wish.to_config()
    with pytest.raises(InvalidRequest, match="Reward takes a function"):
        Reward(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="Energy takes a function"):
        Energy("x")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["relaxed", "first_order", "straight_through", "entropy_weighted"])
def test_the_gradient_in_every_token_kept_is_the_gradient_in_all(method: str) -> None:
    tokenizer = word_tokenizer()
    size = len(tokenizer)
    context = CompileContext(vocabulary=Vocabulary.from_tokenizer(tokenizer), length=5)
    generator = torch.Generator().manual_seed(1)
    known = torch.tensor([[3, -1, -1, 5, -1], [-1, -1, 2, -1, -1]])
    tokens = torch.where(known >= 0, known, torch.randint(size, known.shape, generator=generator))
    logits = 2 * torch.randn(2, 5, size, generator=generator)
    step = Step(index=0, total=1, time=1.0, tokens_BL=tokens, logits_BLV=logits, known_BL=known)
    wish = Classifier(bert(size), "good", strength=30.0, tokenizer=tokenizer, method=method)
    dense = shift(logits, wish.compile(context), step, known)
    kept = shift(logits, replace(wish, support=size).compile(context), step, known)
    # A shift that is the same for all tokens of a position is none; at a decided position nothing is shifted.
    law, expected, unguided = (given.log_softmax(-1)[known < 0] for given in (kept, dense, logits))
    assert torch.allclose(law, expected, rtol=0, atol=1e-5)
    assert float((expected - unguided).abs().max()) > 1e-3


def test_tokens_outside_the_support_move_by_the_average() -> None:
    tokenizer = word_tokenizer()
    context = CompileContext(vocabulary=Vocabulary.from_tokenizer(tokenizer), length=5)
    logits = 2 * torch.randn(2, 5, len(tokenizer), generator=torch.Generator().manual_seed(1))
    step = Step(index=0, total=1, time=1.0, tokens_BL=torch.zeros(2, 5, dtype=torch.int64), logits_BLV=logits)
    guide = Classifier(bert(len(tokenizer)), "good", tokenizer=tokenizer, support=3, strength=2e3).compile(context)
    assert guide.bias is not None and guide.energy is None and guide.reward is not None
    moved = guide.bias(step)
    outside = torch.ones_like(moved).scatter(-1, logits.topk(3).indices, 0.0).bool()
    assert bool((moved.std(-1) > 1e-5).all())
    assert all(len(row[out].unique()) == 1 for row, out in zip(moved.flatten(0, 1), outside.flatten(0, 1), strict=True))
    p = logits.topk(3).values.softmax(-1)
    average = (p * moved.gather(-1, logits.topk(3).indices)).sum(-1)
    assert torch.allclose(average, moved[outside].reshape(2, 5, -1)[..., 0], atol=1e-4)


def test_support_needs_embeddings_and_a_gradient() -> None:
    tokenizer = word_tokenizer()
    context = CompileContext(vocabulary=Vocabulary.from_tokenizer(tokenizer), length=5)
    with pytest.raises(InvalidRequest, match=r"a Linear has no get_input_embeddings"):
        Classifier(torch.nn.Linear(4, 2), 1, tokenizer=tokenizer, support=3).compile(context)
    with pytest.raises(InvalidRequest, match=r"support= is for a gradient"):
        Classifier(torch.nn.Linear(4, 2), 1, tokenizer=tokenizer, support=3, method="exact")
    with pytest.raises(InvalidRequest, match=r"support=0 is a number of tokens, 1 or more"):
        Classifier(torch.nn.Linear(4, 2), 1, tokenizer=tokenizer, support=0)
