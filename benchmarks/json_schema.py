"""JSON Schema on published schema files: what compiles, how fast, and whether instances are told apart.

    python benchmarks/json_schema.py DIRECTORY [--limit N] [--source NAME] [--workers 2] [--seconds 30]

DIRECTORY holds *.jsonl.gz files of {"id", "schema", "tests": [{"valid", "data"}]}. Instances are re-serialised in the
schema's property order, extras last, and given to the automaton; invalid ones in that order too.
"""

import argparse
import collections
import gzip
import json
import multiprocessing
import re
import resource
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from _report import conditions, publish

from constraints.json_check import draft_of
from constraints.json_schema import JSONSchema
from guided_dlm.automata.json_schema import Document
from guided_dlm.errors import GuidedError

MEMORY = 3 << 30


def ordered(value: Any, schema: Any, document: Document, depth: int = 0) -> Any:
    """The value with every object's properties in the order of the schema, extras last.

    Of alternatives, those count that the value is valid under.
    """
    if depth > 64 or not isinstance(value, dict | list):
        return value
    applied = list(applicable(schema, value, document, set()))
    if isinstance(value, list):
        return [ordered(item, item_schemas(applied, index), document, depth + 1) for index, item in enumerate(value)]
    declared: dict[str, None] = {}
    for one in applied:
        declared |= dict.fromkeys(one.get("properties", {}))
        declared |= dict.fromkeys(name for name in one.get("required") or () if isinstance(name, str))
    for one in applied:
        for constant in [one.get("const"), *(one.get("enum") or ())]:
            declared |= dict.fromkeys(constant) if isinstance(constant, dict) else {}
    names = [name for name in declared if name in value] + [name for name in value if name not in declared]
    return {name: ordered(value[name], member_schemas(applied, name), document, depth + 1) for name in names}


def applicable(schema: Any, value: Any, document: Document, seen: set[int]) -> Any:
    """Every subschema that looks at the same value, those written first first."""
    for one in schema if isinstance(schema, list) else [schema]:
        if not isinstance(one, dict) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if "$ref" in one:
            yield from applicable(document.resolve(one["$ref"], document.place(one)), value, document, seen)
        yield from applicable(list(one.get("allOf") or ()), value, document, seen)
        branches = [*(one.get("anyOf") or ()), *(one.get("oneOf") or ())]
        branches += [one[word] for word in ("if", "then", "else") if word in one]
        for word in ("dependencies", "dependentSchemas"):
            branches += [x for x in (one.get(word) or {}).values() if isinstance(x, dict)]
        fitting = [branch for branch in branches if fits(value, branch, document)]
        yield from applicable(fitting, value, document, seen)


def fits(value: Any, schema: Any, document: Document) -> bool:
    try:
        return bool(document.validator(document.root).evolve(schema=schema).is_valid(value))
    except Exception:
        return True


def item_schemas(applied: list[Any], index: int) -> list[Any]:
    found = []
    for one in applied:
        prefix = one.get("prefixItems", one.get("items") if isinstance(one.get("items"), list) else []) or []
        rest = one.get("additionalItems") if isinstance(one.get("items"), list) else one.get("items")
        found.append(prefix[index] if index < len(prefix) else rest)
    return found


def member_schemas(applied: list[Any], name: str) -> list[Any]:
    found = []
    for one in applied:
        own = [one["properties"][name]] if name in one.get("properties", {}) else []
        own += [value for pattern, value in (one.get("patternProperties") or {}).items() if found_in(pattern, name)]
        found += own or [one.get("additionalProperties")]
    return found


def found_in(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def reason(error: GuidedError) -> str:
    """The kind of refusal, with the keyword that the message names."""
    text = str(error)
    for keyword in (
        "uniqueItems",
        "unevaluatedProperties",
        "unevaluatedItems",
        "contains",
        "format",
        "pattern",
        "$ref",
    ):
        if re.search(
            rf"(keyword|format|pattern|\$ref) ?'?{re.escape(keyword)}|\.{re.escape(keyword)}[:.\[ ]", text[:300]
        ):
            return f"{type(error).__name__}: {keyword}"
    return type(error).__name__


def examine(record: dict[str, Any], seconds: int) -> dict[str, Any]:
    """Compile one schema and try its tests."""
    found: dict[str, Any] = {"id": record["id"], "valid": 0, "invalid": 0, "accepted": 0, "rejected": 0, "wrong": []}
    signal.alarm(seconds)
    began = time.perf_counter()
    try:
        constraint = JSONSchema(record["schema"])
        automaton = constraint.to_automaton()
        found["states"] = automaton.num_states
    except GuidedError as error:
        return found | {"refused": reason(error), "message": str(error)[:300], "seconds": time.perf_counter() - began}
    except TimeoutError:
        return found | {"refused": "timeout", "message": "", "seconds": time.perf_counter() - began}
    except MemoryError:
        return found | {"refused": "memory", "message": "", "seconds": time.perf_counter() - began}
    except Exception as error:
        return found | {"refused": f"CRASH {type(error).__name__}", "message": repr(error)[:300], "seconds": 0.0}
    finally:
        signal.alarm(0)
    found["seconds"] = time.perf_counter() - began
    schema = json.loads(constraint.schema)
    document = Document(schema)
    draft = draft_of(schema)
    for test in record["tests"]:
        value = ordered(test["data"], schema, document)
        text = json.dumps(value, ensure_ascii=False)
        texts = (text, json.dumps(value), json.dumps(value, separators=(",", ":")), json.dumps(value, indent=2))
        answers = [automaton.accepts(t.encode("utf-8", "surrogatepass")) for t in texts]
        valid = bool(test["valid"])
        found["valid" if valid else "invalid"] += 1
        if all(answer is valid for answer in answers):
            found["accepted" if valid else "rejected"] += 1
        else:
            try:
                oracle = draft(schema, format_checker=draft.FORMAT_CHECKER).is_valid(test["data"])
            except Exception:
                oracle = None
            found["wrong"].append(
                {
                    "valid": valid,
                    "check": constraint.check(text),
                    "jsonschema": oracle,
                    "text": text[:600],
                    "mixed": len(set(answers)) > 1,
                }
            )
    return found


def _alarm(*_: Any) -> None:
    raise TimeoutError


def work(job: tuple[str, dict[str, Any], int]) -> tuple[str, dict[str, Any]]:
    source, record, seconds = job
    return source, examine(record, seconds)


def prepare() -> None:
    signal.signal(signal.SIGALRM, _alarm)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def row(name: str, results: list[dict[str, Any]]) -> tuple[Any, ...]:
    compiled = [r for r in results if "refused" not in r]
    times = sorted(1000 * r["seconds"] for r in results)
    wrong = [w for r in compiled for w in r["wrong"]]
    cut = lambda share: times[min(len(times) - 1, int(share * len(times)))] if times else 0.0  # noqa: E731
    return (
        name,
        len(results),
        f"{100 * len(compiled) / max(1, len(results)):.1f}",
        f"{100 * sum(not r['wrong'] for r in compiled) / max(1, len(results)):.1f}",
        f"{statistics.median(times or [0]):.1f}",
        f"{cut(0.95):.0f}",
        f"{cut(0.99):.0f}",
        f"{statistics.median([r['states'] for r in compiled] or [0]):.0f}",
        f"{sum(r['accepted'] for r in compiled)} / {sum(r['valid'] for r in compiled)}",
        f"{sum(r['rejected'] for r in compiled)} / {sum(r['invalid'] for r in compiled)}",
        sum(not w["valid"] for w in wrong),
        sum(bool(w["valid"]) for w in wrong),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="schemas per source, 0 for all")
    parser.add_argument("--every", type=int, default=1, help="take every n-th schema only")
    parser.add_argument("--source", action="append")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=30, help="time limit of one schema")
    parser.add_argument("--details", type=Path, help="write every refusal and wrong answer here, as JSON lines")
    arguments = parser.parse_args()
    jobs = []
    for path in sorted(arguments.directory.glob("*.jsonl.gz")):
        source = path.name.removesuffix(".jsonl.gz")
        if arguments.source and source not in arguments.source:
            continue
        with gzip.open(path, "rt") as lines:
            records = [json.loads(line) for line in lines][:: arguments.every]
        jobs += [(source, record, arguments.seconds) for record in records[: arguments.limit or None]]
    if not jobs:
        sys.exit(f"There is no schema to try in {arguments.directory}.")
    results: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    with multiprocessing.Pool(arguments.workers, prepare) as pool:
        for source, found in pool.imap_unordered(work, jobs, chunksize=4):
            results[source].append(found)
    everything = [r for found in results.values() for r in found]
    rows = [row(source, results[source]) for source in sorted(results)] + [row("all", everything)]
    header = ("source", "schemas", "compiled %", "all right %", "ms p50", "ms p95", "ms p99", "states p50")
    header += ("valid accepted", "invalid rejected", "wrong accepts", "wrong rejects")
    refusals = collections.Counter(r["refused"] for r in everything if "refused" in r)
    settings = conditions(
        schemas=len(everything),
        seconds_each=arguments.seconds,
        refusals=dict(refusals.most_common()),
        jsonschema=version(),
    )
    publish("json_schema", "JSON Schema on published schema files", header, rows, settings)
    if arguments.details:
        kept = [r for r in everything if "refused" in r or r["wrong"] or r["seconds"] > 1]
        arguments.details.write_text("".join(json.dumps(r) + "\n" for r in kept))


def version() -> str:
    from importlib.metadata import version as of

    return of("jsonschema")


if __name__ == "__main__":
    main()
