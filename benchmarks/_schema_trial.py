"""One schema and its instances, given to this library and to llguidance; jsonschema is the judge of disagreements."""

import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

from _instances import ordered
from llguidance import LLMatcher, LLTokenizer

from constraints.json_check import draft_of
from constraints.json_schema import JSONSchema
from guided_dlm.automata.json_schema import Document
from guided_dlm.automata.json_schema.compile import compile_schema
from guided_dlm.errors import AutomatonTooLarge, GuidedError

BYTES = LLTokenizer("byte")
KEYWORDS = ("uniqueItems", "unevaluatedProperties", "unevaluatedItems", "contains", "format", "pattern", "$ref")
DEEPER = 12


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the body after so many seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def reason(error: BaseException) -> str:
    """The kind of refusal, with the keyword that the message names."""
    text = str(error)[:300]
    for word in KEYWORDS:
        quoted = re.escape(word)
        if re.search(rf"(keyword|format|pattern|\$ref) ?'?{quoted}|\.{quoted}[:.\[ ]", text):
            return f"{type(error).__name__}: {word}"
    return type(error).__name__ if isinstance(error, GuidedError | TimeoutError) else f"CRASH {type(error).__name__}"


def trial(record: dict[str, Any], seconds: int) -> dict[str, Any]:
    """Compile one schema twice and try its tests; every text is tried spaced, escaped, compact and indented."""
    found: dict[str, Any] = {"id": record["id"]}
    schema, document = record["schema"], None
    with contextlib.suppress(GuidedError):
        document = Document(schema)
    tests = [
        (bool(t["valid"]), ordered(t["data"], schema, document) if document else t["data"]) for t in record["tests"]
    ]
    found["ours"] = _ours(schema, tests, seconds)
    found["llguidance"] = _llguidance(schema, tests, seconds)
    return found


def _ours(schema: Any, tests: list[tuple[bool, Any]], seconds: int) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        with within(seconds):
            constraint = JSONSchema(schema)
            automaton = constraint.to_automaton()
    except Exception as error:
        return {"refused": reason(error), "message": str(error)[:300], "seconds": time.perf_counter() - began}
    found = _empty(time.perf_counter() - began) | {"states": automaton.num_states}
    for valid, value in tests:
        text = json.dumps(value, ensure_ascii=False)
        texts = (text, json.dumps(value), json.dumps(value, separators=(",", ":")), json.dumps(value, indent=2))
        answers = [automaton.accepts(t.encode("utf-8", "surrogatepass")) for t in texts]
        deeper = valid and not any(answers) and _accepted_deeper(schema, texts[2])
        _count(found, schema, valid, value, answers, deeper)
    return found


def _accepted_deeper(schema: Any, compact: str) -> int:
    """The least depth at which a refused text is accepted, 0 if there is none or the automaton outgrows its limit."""
    try:
        compiled = compile_schema(schema)
        for depth in range(compiled.depth + 1, compiled.depth + DEEPER if compiled.cut else 0):
            if compile_schema(schema, "compact", depth=depth, escapes="needed").automaton.accepts(compact.encode()):
                return depth
    except (AutomatonTooLarge, MemoryError):
        return 0
    return 0


def _llguidance(schema: Any, tests: list[tuple[bool, Any]], seconds: int) -> dict[str, Any]:
    began = time.perf_counter()
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    matcher = LLMatcher(BYTES, grammar, log_level=0)
    if matcher.is_error():
        message = matcher.get_error()
        return {"refused": "llguidance", "message": message[:300], "seconds": time.perf_counter() - began}
    found = _empty(time.perf_counter() - began)
    for valid, value in tests:
        one = matcher.deep_copy()
        accepted = (
            one.consume_tokens(list(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")))
            and one.is_accepting()
        )
        _count(found, schema, valid, value, [accepted], 0)
    return found


def _empty(seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "valid": 0, "invalid": 0, "accepted": 0, "rejected": 0, "deeper": 0, "wrong": []}


def _count(found: dict[str, Any], schema: Any, valid: bool, value: Any, answers: list[bool], deeper: int) -> None:
    found["valid" if valid else "invalid"] += 1
    if all(answer is valid for answer in answers):
        found["accepted" if valid else "rejected"] += 1
        return
    if deeper:
        found["deeper"] += 1
        return
    draft = draft_of(schema)
    try:
        oracle = bool(draft(schema, format_checker=draft.FORMAT_CHECKER).is_valid(value))
    except Exception as error:
        oracle = type(error).__name__
    mixed = len(set(answers)) > 1
    text = json.dumps(value)[:600]
    found["wrong"].append({"valid": valid, "jsonschema": oracle, "mixed": mixed, "text": text})
