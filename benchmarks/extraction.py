"""Records from text with `restaurant-json`: held to the schema, and free.

    python benchmarks/extraction.py --validation FILE [--model NAME] [--limit 500] [--steps 16] [--only texts]

`FILE` holds {"text", "record"} lines. Records are written from left to right, two tokens at a time, or with the
length first, in --steps over the whole canvas, or drawn --votes times from left to right, each slot decided by
majority. A slot is right where the parsed record has the very value of the reference; a free run's record counts
where its text parses as a JSON object, valid or not. The way back is a table of its own, `record_to_text`: how many of
the records' values texts mention at the model's own settings, with the name held and without, in all the room that the
canvas has or in 60 tokens, and how many the people's texts mention. `--only` says which of the two to run.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

from _report import conditions, publish

from constraints import JSONSchema, Words
from guided_dlm import GuidedPipeline
from guided_dlm.evaluation.records import RecordScores, mentioned_share, parse_record, score_records, vote
from guided_dlm.models import locate
from guided_dlm.training.data import read_lines
from guided_dlm.training.pairs import as_prompt, record_text


def as_row(name: str, scores: RecordScores, seconds: float) -> tuple:
    shares = (scores.valid, scores.slot_accuracy, scores.precision, scores.f1, scores.exact)
    return (name, *(f"{100 * share:.1f}" for share in shares), f"{seconds:.0f}")


def voted(pipeline: GuidedPipeline, prompts: list[str], schema: dict[str, Any], votes: int) -> list[str]:
    """A record for each prompt, its slots by vote over draws at temperature 1."""
    options: Any = {"temperature": 1.0, "corrector": "none", "block_length": 1, "steps": 1, "max_new_tokens": 64}
    repeated = [prompt for prompt in prompts for _ in range(votes)]
    out = pipeline(repeated, JSONSchema(schema, whitespace="compact"), **options)
    drawn = [parse_record(text) for text in out.texts]
    return [record_text(vote(drawn[i : i + votes])) for i in range(0, len(drawn), votes)]


def read_records(
    pipeline: GuidedPipeline, lines: list[dict[str, Any]], schema: dict[str, Any], steps: int, votes: int
) -> list[tuple]:
    """A row for each way to read records off texts."""
    records = [line["record"] for line in lines]
    prompts = [as_prompt(line["text"]) for line in lines]
    rows = []
    orders: dict[str, Any] = {"left to right": {"block_length": 2, "steps": 2}, "length first": {"steps": steps}}
    for order, temperature in itertools.product(orders, (0.0, 1.0)):
        for name, wish in (("with the schema", JSONSchema(schema, whitespace="compact")), ("free", None)):
            began = time.perf_counter()
            options = {"temperature": temperature, "corrector": "none", **orders[order]}
            out = pipeline(prompts, wish, max_new_tokens=64, **options)
            seconds = time.perf_counter() - began
            scores = score_records(out.texts, records, schema)
            rows.append(as_row(f"{name}, {order}, temperature {temperature:g}", scores, seconds))
            print(rows[-1], flush=True)
    if votes:
        began = time.perf_counter()
        texts = voted(pipeline, prompts, schema, votes)
        scores = score_records(texts, records, schema)
        name, seconds = f"with the schema, slots by vote of {votes} draws", time.perf_counter() - began
        rows.append(as_row(name, scores, seconds))
    return rows


def write_texts(pipeline: GuidedPipeline, lines: list[dict[str, Any]]) -> list[tuple]:
    """A row for each way to write texts from records, and people's."""
    records = [line["record"] for line in lines]
    prompts = [as_prompt(record_text(record)) for record in records]
    names = [Words(include=[record["name"]]) for record in records]
    ways: dict[str, Any] = {
        "as shipped": {},
        "as shipped, in 60 tokens": {"max_new_tokens": 60},
        "as shipped, name held": {"constraint": names},
        "temperature 0.5, no corrector": {"temperature": 0.5, "corrector": "none"},
    }
    texts = {name: pipeline(prompts, **options).texts for name, options in ways.items()}
    rows = []
    for name, written in (texts | {"people": [line["text"] for line in lines]}).items():
        named = sum(record["name"] in text for text, record in zip(written, records, strict=True))
        words = statistics.fmean(len(text.split()) for text in written)
        shown = f"{100 * mentioned_share(written, records):.1f}"
        rows.append((name, shown, f"{100 * named / len(records):.1f}", f"{words:.1f}", " ".join(written[0].split())))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validation", required=True)
    parser.add_argument("--model", default="restaurant-json")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--votes", type=int, default=16, help="draws of each record whose slots are put to the vote")
    parser.add_argument("--only", choices=["records", "texts"])
    arguments = parser.parse_args()
    lines = [line for line, _ in read_lines(arguments.validation)]
    lines = lines[:: -(-len(lines) // arguments.limit)]
    pipeline = GuidedPipeline.from_pretrained(arguments.model)
    schema = json.loads((Path(locate(arguments.model)) / "schema.json").read_text(encoding="utf-8"))
    settings = conditions(model=arguments.model, n=len(lines), seed=0)
    if arguments.only != "texts":
        rows = read_records(pipeline, lines, schema, arguments.steps, arguments.votes)
        header = ("text to record", "valid %", "slot accuracy %", "precision %", "F1 %", "exact %", "seconds")
        more = {"length_first_steps": arguments.steps, "votes": arguments.votes}
        publish("extraction", "Records from text", header, rows, settings | more)
    if arguments.only != "records":
        header = ("record to text", "values mentioned %", "names mentioned %", "words mean", "first text")
        publish("record_to_text", "Text from records", header, write_texts(pipeline, lines), settings)


if __name__ == "__main__":
    main()
