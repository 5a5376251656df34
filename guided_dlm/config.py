"""Constraints from plain JSON: {"constraint": name, ...}, and the operators around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from guided_dlm import registry
from guided_dlm.algebra import All, AnyOf, During, Not, Scaled, Scheduled
from guided_dlm.constraint import Constraint
from guided_dlm.errors import InvalidRequest, within

MAX_DEPTH = 100


def from_config(config: Any, path: str = "$") -> Constraint:
    """Build a constraint from plain JSON, which error messages call `path`; see `Constraint.from_config`."""
    depth, level = 0, [config]
    while level := [child for value in level for child in _children(value)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{path}: this nests more than {MAX_DEPTH} levels deep; write it flatter.")
    return _read(config, path)


def _children(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def _read(config: Any, path: str) -> Constraint:
    if not isinstance(config, Mapping):
        raise InvalidRequest(f"{path}: expected an object like {{'constraint': 'length', ...}}, got {config!r}.")
    if "constraint" in config:
        return _read_leaf(config, path)
    keys = set(config)
    if keys == {"all"} or keys == {"any"}:
        key = next(iter(keys))
        operands = _read_each(config[key], f"{path}.{key}")
        with within(path):
            return All(*operands) if key == "all" else AnyOf(*operands)
    if keys == {"not"}:
        operand = _read(config["not"], f"{path}.not")
        with within(path):
            return Not(operand)
    if keys == {"scale", "of"}:
        operand = _read(config["of"], f"{path}.of")
        with within(path):
            return Scaled(config["scale"], operand)
    if keys == {"during", "of"}:
        start, stop = _read_pair(config["during"], "[start, stop]", f"{path}.during")
        operand = _read(config["of"], f"{path}.of")
        with within(path):
            return During(start, stop, operand)
    if keys == {"ramp", "of"}:
        pair = _read_pair(config["ramp"], "[first, last]", f"{path}.ramp")
        operand = _read(config["of"], f"{path}.of")
        with within(path):
            return Scheduled(pair, operand)
    raise InvalidRequest(
        f"{path}: {sorted(keys, key=str)} is no constraint. Give 'constraint', 'all', 'any', 'not', or 'of' with "
        "'scale', 'during' or 'ramp'."
    )


def _read_leaf(config: Mapping[str, Any], path: str) -> Constraint:
    name = config["constraint"]
    if not isinstance(name, str):
        raise InvalidRequest(f"{path}.constraint: expected a constraint's name, got {name!r}.")
    with within(f"{path}.constraint"):
        cls = cast("type[Constraint]", registry.get(name))
    return cls.from_fields({key: value for key, value in config.items() if key != "constraint"}, path)


def _read_each(configs: Any, path: str) -> list[Constraint]:
    if not isinstance(configs, list) or not configs:
        raise InvalidRequest(f"{path}: expected a list of at least one constraint, got {configs!r}.")
    return [_read(config, f"{path}[{index}]") for index, config in enumerate(configs)]


def _read_pair(pair: Any, names: str, path: str) -> tuple[Any, Any]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise InvalidRequest(f"{path}: expected {names}, got {pair!r}.")
    return pair[0], pair[1]
