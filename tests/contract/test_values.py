"""Every constraint is a value: config round trip, equality, hash, frozen, and a repr that reads like the expression."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from wishes import ANY, HARD, Prefer

import constraints
from constraints import Blank, Choice, Length, Regex, Template, Words
from guided_dlm import Constraint
from guided_dlm.errors import InvalidRequest, NotSerializable, UnknownConstraint, UnsupportedPattern

NAMES = {name: getattr(constraints, name) for name in constraints.__all__} | {"Prefer": Prefer}


@given(ANY)
def test_config_round_trips_through_json_text(wish: Constraint) -> None:
    again = Constraint.from_config(json.loads(json.dumps(wish.to_config())))
    assert again == wish
    assert hash(again) == hash(wish)
    assert repr(again) == repr(wish)
    assert again.to_config() == wish.to_config()


@given(ANY)
def test_repr_reads_like_the_expression(wish: Constraint) -> None:
    assert eval(repr(wish), NAMES) == wish


@given(HARD, HARD)
def test_equality_is_that_of_the_config(one: Constraint, other: Constraint) -> None:
    assert (one == other) is (one.to_config() == other.to_config())


@given(ANY)
def test_constraints_are_frozen(wish: Constraint) -> None:
    for field in dataclasses.fields(wish):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(wish, field.name, None)


@pytest.mark.parametrize(
    ("wish", "shown"),
    [
        (Length(words=3), "Length(words=3)"),
        (Words(include=["a b"], in_order=True), "Words(include=['a b'], in_order=True)"),
        (Regex("a+"), "Regex('a+')"),
        (Regex("a+", flags="i"), "Regex('a+', flags='i')"),
        (Choice(["a", "b"]), "Choice(['a', 'b'])"),
        (Template(["a ", Blank()]), "Template(['a ', Blank()])"),
        (Regex("a") & Regex("b") & ~Regex("c"), "Regex('a') & Regex('b') & ~Regex('c')"),
        (Regex("a") & (Regex("b") | Regex("c")), "Regex('a') & (Regex('b') | Regex('c'))"),
        (~(Regex("a") & Regex("b")), "~(Regex('a') & Regex('b'))"),
        (~~Regex("a"), "~~Regex('a')"),
        (2.0 * Prefer(word="a"), "2.0 * Prefer(word='a')"),
        (2 * Prefer(word="a").during(0, 0.5), "2 * Prefer(word='a').during(0, 0.5)"),
        ((2.0 * Prefer(word="a")).during(0, 0.5), "(2.0 * Prefer(word='a')).during(0, 0.5)"),
        ((2.0 * Prefer(word="a")).scheduled([0, 1.5]), "(2.0 * Prefer(word='a')).scheduled((0, 1.5))"),
    ],
)
def test_known_reprs(wish: Constraint, shown: str) -> None:
    assert repr(wish) == shown


def test_configs_are_those_of_the_design() -> None:
    soft = Prefer(word="a")
    assert Length(words=(8, 12)).to_config() == {"constraint": "length", "words": [8, 12]}
    assert (Regex("a") & Regex("b")).to_config() == {
        "all": [{"constraint": "regex", "pattern": "a"}, {"constraint": "regex", "pattern": "b"}]
    }
    assert set((Regex("a") | Regex("b")).to_config()) == {"any"}
    assert (~Regex("a")).to_config() == {"not": {"constraint": "regex", "pattern": "a"}}
    assert (2.0 * soft).to_config() == {"scale": 2.0, "of": soft.to_config()}
    assert soft.during(0, 0.6).to_config() == {"during": [0, 0.6], "of": soft.to_config()}
    assert soft.scheduled((0, 2.0)).to_config() == {"ramp": [0, 2.0], "of": soft.to_config()}


LEAF = {"constraint": "regex", "pattern": "a"}
SOFT = {"constraint": "test-prefer", "word": "a"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"constraint": "length", "wrods": 3}, r"\$: Length has no field 'wrods'.*'words'"),
        ({"all": [LEAF, {"constraint": "regex", "patern": "a"}]}, r"\$\.all\[1\]: Regex has no field 'patern'"),
        ({"not": {"any": [{"constraint": "choice", "x": 1}]}}, r"\$\.not\.any\[0\]: Choice has no field 'x'"),
        ({"scale": 2, "of": {**SOFT, "x": 1}}, r"\$\.of: Prefer has no field 'x'"),
        ({"constraint": "template", "parts": [{"blank": {"wordz": 1}}]}, r"parts\[0\]\.blank: Blank has no .*'wordz'"),
        ({"constraint": "template", "parts": ["a"], "x": 1}, r"\$: .*'x'"),
        ({"constraint": "template", "parts": "a"}, r"\$\.parts: expected a list of texts .*got 'a'"),
        ({"constraint": "template", "parts": [{"blank": 3}]}, r"\$\.parts\[0\]\.blank: expected an object .*got 3"),
        ({"constraint": "template", "parts": [{"blank": {"words": -1}}]}, r"\$\.parts\[0\]\.blank: .*=-1: give"),
        ({"constraint": "template", "parts": [{"blank": {"regex": 3}}]}, r"\$\.parts\[0\]\.blank: .*not a text"),
        ({"all": [{"constraint": "length", "words": [3, 2]}]}, r"\$\.all\[0\]: .*minimum is larger"),
        ({"constraint": "words", "include": []}, r"\$: .*asks for nothing"),
        ({"constraint": "words", "include": "pub"}, r"\$: .*give a list"),
        ({"constraint": "regex"}, r"\$: Regex needs the field 'pattern'"),
        ({"constraint": "regex", "pattern": 3}, r"\$: .*not a text"),
        ({"constraint": "regex", "pattern": "a", "flags": 3}, r"\$: .*not a text"),
        ({"constraint": ["length"]}, r"\$\.constraint: expected a constraint's name"),
        ({"constraint": None}, r"\$\.constraint: expected a constraint's name"),
        ({}, r"\$: \[\] is no constraint"),
        ({"all": [LEAF], "any": [LEAF]}, r"\$: \['all', 'any'\] is no constraint"),
        ({"all": LEAF}, r"\$\.all: expected a list"),
        ({"all": [3]}, r"\$\.all\[0\]: expected an object"),
        ({"any": []}, r"\$\.any: .*at least one constraint"),
        ({"all": []}, r"\$\.all: .*at least one constraint"),
        ({"constraint": "template"}, r"\$: Template needs the field 'parts'"),
        ({"constraint": "template", "parts": ["a", 3]}, r"\$\.parts\[1\]: expected a text or .*got 3"),
        ({"constraint": "template", "parts": [{"gap": {}}]}, r"\$\.parts\[0\]: expected a text or"),
        ({"scale": True, "of": SOFT}, r"\$: .*finite number, not by True"),
        ({"not": {"during": [True, 1], "of": SOFT}}, r"\$\.not: during\(True, 1\): give two numbers"),
        ({1: 2, "a": 3}, r"\$: \[1, 'a'\] is no constraint"),
        ({"constraint": "length", 1: 3}, r"\$: Length has no field 1"),
        ({"not": [LEAF]}, r"\$\.not: expected an object"),
        ({"not": SOFT}, r"\$: ~Prefer.*no opposite"),
        ({"any": [LEAF, SOFT]}, r"\$: .*mixes a guarantee with a preference"),
        ({"scale": 2}, r"\$: \['scale'\] is no constraint"),
        ({"scale": 2, "of": LEAF}, r"\$: 2 \* Regex.*no strength"),
        ({"scale": "2", "of": SOFT}, r"\$: .*finite number"),
        ({"scale": float("nan"), "of": SOFT}, r"\$: .*finite number"),
        ({"during": [0, 1], "of": LEAF}, r"\$: Regex.*every step"),
        ({"during": [0.6, 0.5], "of": SOFT}, r"\$: during\(0\.6, 0\.5\): .*0 <= start < stop <= 1"),
        ({"during": [0, 2], "of": SOFT}, r"0 <= start < stop <= 1"),
        ({"during": ["a", 1], "of": SOFT}, r"\$: during\('a', 1\): give two numbers"),
        ({"during": 0.5, "of": SOFT}, r"\$\.during: expected \[start, stop\]"),
        ({"ramp": [0, 1], "of": LEAF}, r"\$: Regex.*every step"),
        ({"ramp": [0, "1"], "of": SOFT}, r"\$: scheduled\(\(0, '1'\)\): give a pair of finite numbers"),
        ({"ramp": [1], "of": SOFT}, r"\$\.ramp: expected \[first, last\], got \[1\]"),
        ({"ramp": [0, 1]}, r"\$: \['ramp'\] is no constraint"),
        ([LEAF], r"\$: expected an object"),
        ("length", r"\$: expected an object"),
        (None, r"\$: expected an object"),
    ],
)  # fmt: skip
def test_a_bad_config_is_refused_with_its_path(config: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Constraint.from_config(config)


def test_a_bad_pattern_keeps_its_error_and_gains_the_path() -> None:
    with pytest.raises(UnsupportedPattern, match=r"\$\.all\[1\]: The pattern '\(' does not parse"):
        Constraint.from_config({"all": [LEAF, {"constraint": "regex", "pattern": "("}]})


def test_a_misspelled_constraint_is_suggested() -> None:
    with pytest.raises(UnknownConstraint, match=r"\$\.not\.constraint: .*Did you mean 'length'"):
        Constraint.from_config({"not": {"constraint": "lenght", "words": 3}})


@pytest.mark.parametrize("depth", [99, 101, 50_000])
def test_a_config_nests_at_most_100_levels_deep(depth: int) -> None:
    config: Any = LEAF
    for _ in range(depth - 1):
        config = {"not": config}
    if depth <= 100:
        assert Constraint.from_config(config).to_config() == config
        return
    with pytest.raises(InvalidRequest, match="more than 100 levels"):
        Constraint.from_config(config)


@pytest.mark.parametrize(
    ("given", "stored"), [(np.int64(3), (3, 3)), ((np.int32(1), None), (1, None)), ([0, np.uint8(2)], (0, 2))]
)
def test_whole_numbers_of_numpy_are_whole_numbers(given: Any, stored: tuple[int, int | None]) -> None:
    wish = Length(words=given)
    assert wish == Length(words=stored)
    assert json.loads(json.dumps(wish.to_config()))["words"] == list(stored)


@pytest.mark.parametrize("given", [True, np.True_, np.float64(3), (False, 3), "3", None])
def test_what_is_no_whole_number_is_no_count(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="Length"):
        Length(words=given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "Words: include=None is no list"),
        ({"a"}, r"Words: include=\{'a'\} is no list"),
        (b"a", "Words: include=b'a' is no list"),
        ("a", r"Words: include='a': .*here \['a'\]"),
        (["a", 97], r"Words: include\[1\]=97 is not a text"),
    ],
)
def test_what_is_no_list_of_texts_is_said_by_name(given: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Words(include=given)


def test_a_live_object_is_not_serialisable() -> None:
    with pytest.raises(NotSerializable, match=r"Prefer\.word holds a object"):
        Prefer(word=object()).to_config()  # type: ignore[arg-type]
    with pytest.raises(NotSerializable):
        (Regex("a") & 2.0 * Prefer(word=object())).to_config()  # type: ignore[arg-type]
