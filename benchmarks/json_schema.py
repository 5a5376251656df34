"""JSON Schema on published schema files: what compiles, how fast, and whether instances are told apart.

    python benchmarks/json_schema.py DIRECTORY [--every N] [--limit N] [--source NAME] [--workers 2] [--seconds 30]

DIRECTORY holds *.jsonl.gz files of {"id", "schema", "tests": [{"valid", "data"}]}. Instances are re-serialised in the
schema's property order, extras last, and given to the automaton; invalid ones in that order too. A valid one that is
refused and accepted at a greater `depth` counts as deeper than the bound. llguidance (the `dev` extra), a parser that
has no depth bound and works token by token, gets the same texts.
"""

import argparse
import collections
import gzip
import json
import multiprocessing
import resource
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _report import conditions, publish
from _schema_trial import trial
from tqdm import tqdm

MEMORY = 3 << 30
HEADER = ("source", "schemas", "compiled %", "all right %", "ms p50", "ms p95", "ms p99", "states p50")
HEADER += ("valid accepted", "deeper than the bound", "wrong rejects", "invalid rejected", "wrong accepts")


def work(job: tuple[str, dict[str, Any], int]) -> tuple[str, dict[str, Any]]:
    source, record, seconds = job
    return source, trial(record, seconds)


def prepare() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def row(name: str, results: list[dict[str, Any]]) -> tuple[Any, ...]:
    compiled = [r for r in results if "refused" not in r]
    times = sorted(1000 * r["seconds"] for r in results)
    wrong = [w for r in compiled for w in r["wrong"]]
    cut = lambda share: times[min(len(times) - 1, int(share * len(times)))] if times else 0.0  # noqa: E731
    right = sum(not r["wrong"] and not r["deeper"] for r in compiled)
    return (
        name,
        len(results),
        f"{100 * len(compiled) / max(1, len(results)):.1f}",
        f"{100 * right / max(1, len(results)):.1f}",
        f"{statistics.median(times or [0]):.1f}",
        f"{cut(0.95):.0f}",
        f"{cut(0.99):.0f}",
        f"{statistics.median([r.get('states', 0) for r in compiled] or [0]):.0f}",
        f"{sum(r['accepted'] for r in compiled)} / {sum(r['valid'] for r in compiled)}",
        sum(r["deeper"] for r in compiled),
        sum(bool(w["valid"]) for w in wrong),
        f"{sum(r['rejected'] for r in compiled)} / {sum(r['invalid'] for r in compiled)}",
        sum(not w["valid"] for w in wrong),
    )


def jobs_of(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any], int]]:
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
    return jobs


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
    results: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    with multiprocessing.Pool(arguments.workers, prepare) as pool:
        jobs = jobs_of(arguments)
        for source, found in tqdm(pool.imap_unordered(work, jobs, chunksize=4), total=len(jobs)):
            results[source].append(found)
    everything = [r for found in results.values() for r in found]
    rows = [row(source, [r["ours"] for r in results[source]]) for source in sorted(results)]
    rows.append(row("all", [r["ours"] for r in everything]))
    rows.append(row("all, llguidance", [r["llguidance"] for r in everything]))
    refusals = collections.Counter(r["ours"]["refused"] for r in everything if "refused" in r["ours"])
    settings = conditions(
        schemas=len(everything),
        seconds_each=arguments.seconds,
        workers=arguments.workers,
        refusals=dict(refusals.most_common()),
        jsonschema=version("jsonschema"),
        llguidance=version("llguidance"),
    )
    publish("json_schema", "JSON Schema on published schema files", HEADER, rows, settings)
    if arguments.details:
        kept = [r for r in everything if any("refused" in x or x["wrong"] for x in (r["ours"], r["llguidance"]))]
        arguments.details.write_text("".join(json.dumps(r) + "\n" for r in kept))


if __name__ == "__main__":
    main()
