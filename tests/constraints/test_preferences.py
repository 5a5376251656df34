"""Soft wishes on whole texts: preferred words, a length with a penalty, patterns with weights."""

import re
from typing import Any

import pytest
import torch
from tiny import tiny_pipeline

from constraints import Length, Preferences, Words
from guided_dlm import Constraint
from guided_dlm.errors import InvalidRequest
from guided_dlm.explain import explanation
from guided_dlm.testing import check_constraint

TEXTS = ["", "a", "the pub", "pub, pub", "a cheap pub .", "caf\u00e9\n3", "one two three four", "A b. C d! E"]
SOFT = [
    Words(prefer={"pub": 2.0}),
    Words(prefer={"pub": 2.0, "cheap": -1.5}, ignore_case=True),
    Length(words=(2, 3), penalty=5.0),
    Length(characters=4, penalty=10.0),
    Length(words=2, sentences=(1, None), penalty=25.0),
    Preferences({r".*\d.*": -3.0, "a.*": 0.5}),
]


@pytest.mark.parametrize("wish", SOFT, ids=repr)
def test_the_automaton_weighs_what_check_says(wish: Any) -> None:
    weighted = wish.to_weighted()
    for text in TEXTS:
        assert weighted.weight(text.encode()) == pytest.approx(wish.check(text)), text


@pytest.mark.parametrize("wish", SOFT, ids=repr)
def test_soft_wishes_keep_the_contract(wish: Constraint) -> None:
    check_constraint(wish)
    assert not wish.hard
    assert Constraint.from_config(wish.to_config()) == wish


@pytest.mark.parametrize(
    ("wish", "score"),
    [
        (Words(prefer={"pub": 2.0}), [0, 0, 2, 2, 2, 0, 0, 0]),  # once, however often; whole words
        (Length(words=(2, 3), penalty=5.0), [-10, -5, 0, 0, 0, -0.0, -5, -10]),
        (Preferences({r".*\d.*": -3.0, "a.*": 0.5}), [0, 0.5, 0, 0, 0.5, -3, 0, 0]),
    ],
)
def test_scores_are_those_of_the_definition(wish: Constraint, score: list[float]) -> None:
    assert [wish.check(text) for text in TEXTS] == pytest.approx(score)


def test_a_preference_moves_the_law_and_forbids_nothing() -> None:
    pipe, wish = tiny_pipeline(), Words(prefer={"pub": 4.0})
    share = [
        sum("pub" in re.findall(r"\w+", text) for text in pipe(constraint=c, num_samples=64, steps=4, seed=0).texts)
        for c in (None, wish, 0.25 * wish)
    ]
    assert share[0] < share[2] < share[1]


def test_a_preference_beside_a_guarantee_leaves_it_whole() -> None:
    out = tiny_pipeline()(
        constraint=Words(include=["Mill"]) & 3.0 * Words(prefer={"pub": 10.0}) & Length(words=3, penalty=1.0),
        num_samples=16,
        steps=4,
    )
    assert out.satisfied.all()
    assert torch.isfinite(torch.tensor([row["Words(prefer=[('pub', 10.0)])"]["score"] for row in out.report])).all()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Words(prefer={}), "give a mapping"),
        (lambda: Words(prefer="pub"), "give a mapping"),
        (lambda: Words(prefer={"pub": "much"}), "finite number"),
        (lambda: Words(prefer={" ": 1.0}), "empty phrase"),
        (lambda: Words(include=["a"], prefer={"pub": 1.0}), "Words\\(...\\) & Words\\(prefer"),
        (lambda: Length(words=3, penalty=0.0), "from 0.5 to"),
        (lambda: Length(tokens=3, penalty=1.0), "not tokens"),
        (lambda: Preferences({}), "give a mapping"),
        (lambda: Preferences({"a(": 1.0}), "does not parse"),
    ],
)
def test_what_cannot_be_weighed_is_refused(make: Any, reason: str) -> None:
    with pytest.raises((InvalidRequest, ValueError), match=reason):
        make()


def test_an_explanation_promises_no_guarantee_for_a_preference() -> None:
    context, wish = tiny_pipeline().context(12), Words(prefer={"pub": 1.0})
    promises = [row.promise for row in explanation(wish & Length(words=3), context)]
    assert promises == ["exact per step, forbids nothing", "guaranteed by automaton", "guaranteed by automaton"]
    assert [row.promise for row in explanation(wish & 2.0 * wish, context)] == ["exact per step, forbids nothing"] * 3


def test_weights_of_whole_texts_have_no_window_and_no_opposite() -> None:
    wish = Words(prefer={"pub": 1.0})
    with pytest.raises(TypeError, match="preference"):
        _ = ~wish
    with pytest.raises(TypeError, match="at every step"):
        tiny_pipeline()(constraint=wish.during(0.0, 0.5))
    with pytest.raises(TypeError, match=r"at every step. Leave out scheduled\(\)"):
        tiny_pipeline()(constraint=wish.scheduled((0.0, 0.5)))
