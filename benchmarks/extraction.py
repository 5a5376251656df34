"""Records from text with `restaurant-json`: held to the schema, and free.

    python benchmarks/extraction.py --validation FILE [--model NAME] [--limit 500] [--steps 16]

`FILE` holds {"text", "record"} lines. Records are written from left to right, two tokens at a time, or with the
length first, in --steps over the whole canvas, or drawn --votes times from left to right, each slot decided by
majority. A slot is right where the parsed record has the very value of the reference; a free run's record counts
where its text parses as a JSON object, valid or not. Also the way back: text from a record, with
its name held and without, and how many of the record's values the text mentions.
"""

import argparse
import itertools
import json
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
    options: Any = {"temperature": 1.0, "block_length": 1, "steps": 1, "max_new_tokens": 64, "batch_size": 64}
    repeated = [prompt for prompt in prompts for _ in range(votes)]
    out = pipeline(repeated, JSONSchema(schema, whitespace="compact"), **options)
    drawn = [parse_record(text) for text in out.texts]
    return [record_text(vote(drawn[i : i + votes])) for i in range(0, len(drawn), votes)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validation", required=True)
    parser.add_argument("--model", default="restaurant-json")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--votes", type=int, default=16, help="draws of each record whose slots are put to the vote")
    arguments = parser.parse_args()
    lines = [line for line, _ in read_lines(arguments.validation)]
    lines = lines[:: -(-len(lines) // arguments.limit)]
    records = [line["record"] for line in lines]
    pipeline = GuidedPipeline.from_pretrained(arguments.model)
    schema = json.loads((Path(locate(arguments.model)) / "schema.json").read_text(encoding="utf-8"))
    prompts = [as_prompt(line["text"]) for line in lines]
    rows = []
    orders: dict[str, Any] = {
        "left to right": {"block_length": 2, "steps": 2},
        "length first": {"steps": arguments.steps},
    }
    for order, temperature in itertools.product(orders, (0.0, 1.0)):
        for name, wish in (("with the schema", JSONSchema(schema, whitespace="compact")), ("free", None)):
            began = time.perf_counter()
            out = pipeline(prompts, wish, temperature=temperature, max_new_tokens=64, **orders[order])
            seconds = time.perf_counter() - began
            scores = score_records(out.texts, records, schema)
            rows.append(as_row(f"{name}, {order}, temperature {temperature:g}", scores, seconds))
            print(rows[-1], flush=True)
    if arguments.votes:
        began = time.perf_counter()
        texts = voted(pipeline, prompts, schema, arguments.votes)
        scores = score_records(texts, records, schema)
        name, seconds = f"with the schema, slots by vote of {arguments.votes} draws", time.perf_counter() - began
        rows.append(as_row(name, scores, seconds))
        print(rows[-1], flush=True)
    header = ("text to record", "valid %", "slot accuracy %", "precision %", "F1 %", "exact %", "seconds")
    settings = conditions(
        model=arguments.model, n=len(lines), length_first_steps=arguments.steps, votes=arguments.votes, seed=0
    )
    publish("extraction", "Records from text", header, rows, settings)
    names = [Words(include=[record["name"]]) for record in records]
    for how, wish, corrector in (("name held", names, None), ("free", None, None), ("free, p2", None, "p2")):
        write_back(pipeline, records, how, constraint=wish, corrector=corrector, steps=2 * arguments.steps)


def write_back(pipeline: GuidedPipeline, records: list[dict[str, Any]], how: str, **options: Any) -> None:
    """Print how many of the records' values their texts mention, and the first three texts."""
    back = pipeline([as_prompt(record_text(record)) for record in records], max_new_tokens=60, **options)
    named = sum(record["name"] in text for text, record in zip(back.texts, records, strict=True))
    shown = mentioned_share(back.texts, records)
    print(f"record to text, {how}: {named} of {len(records)} names, values mentioned {100 * shown:.1f} %")
    for record, text in list(zip(records, back.texts, strict=True))[:3]:
        print("-", record_text(record), "->", text)


if __name__ == "__main__":
    main()
