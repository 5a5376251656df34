"""Walks through an automaton, and JSON values in every spelling: what the tests of JSON Schema share."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

from guided_dlm.automata import ByteAutomaton


def walk(automaton: ByteAutomaton, rng: random.Random, most: int = 120) -> bytes:
    """A text of the automaton: random steps at first, then the shortest way out."""
    state, data = 0, bytearray()
    column = automaton.byte_class
    while True:
        if automaton.accepting[state] and (len(data) > most or rng.random() < 0.2):
            return bytes(data)
        after = automaton.table[state][column]
        live = np.flatnonzero(after >= 0)
        if len(data) > most:
            live = live[automaton.distance[after[live]] == automaton.distance[state] - 1]
        if not live.size:
            return bytes(data)
        # One target at a time, so that 200 bytes of a string do not drown its closing quote.
        targets = sorted(set(after[live].tolist()))
        target = rng.choice(targets)
        byte = rng.choice(live[after[live] == target].tolist())
        data.append(byte)
        state = target


def spell(text: str, rng: random.Random) -> str:
    """A string in a random JSON spelling."""
    short = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
    out = []
    for character in text:
        units = character.encode("utf-16-be")
        escaped = "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
        ways = [escaped, escaped.upper().replace("\\U", "\\u")]
        if character in short:
            ways.append("\\" + short[character])
        if ord(character) >= 0x20 and character not in '"\\':
            ways += [character, character]
        out.append(rng.choice(ways))
    return '"' + "".join(out) + '"'


def write(value: Any, rng: random.Random) -> str:
    """A JSON value with random white space and spellings, properties in their own order."""

    def gap() -> str:
        return rng.choice(["", "", " ", "\n", " \t\r\n"])

    if isinstance(value, str):
        return spell(value, rng)
    if isinstance(value, list):
        return "[" + gap() + f"{gap()},{gap()}".join(write(x, rng) for x in value) + gap() + "]"
    if isinstance(value, dict):
        members = [f"{spell(k, rng)}{gap()}:{gap()}{write(v, rng)}" for k, v in value.items()]
        return "{" + gap() + f"{gap()},{gap()}".join(members) + gap() + "}"
    return json.dumps(value)
