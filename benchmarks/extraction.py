"""Records from text with `restaurant-json`: held to the schema, and free.

    python benchmarks/extraction.py --validation FILE [--model NAME] [--limit 500] [--steps 16]

`FILE` holds {"text", "record"} lines. A slot is right where the parsed record has the very value of the reference; the
free run's record counts where its text parses as a JSON object, valid or not. Also the way back: text from a record,
its name held in place by a template, and how many of the record's values the text has word for word.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jsonschema
from _report import conditions, publish

from constraints import JSONSchema, Words
from guided_dlm import GuidedPipeline
from guided_dlm.models import locate
from guided_dlm.training.data import read_lines
from guided_dlm.training.pairs import as_prompt, record_text


def parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


def extraction(
    name: str, texts: list[str], records: list[dict[str, str]], schema: dict[str, Any], seconds: float
) -> tuple:
    found = [parsed(text) for text in texts]
    right = sum(
        got.get(slot) == value for got, gold in zip(found, records, strict=True) for slot, value in gold.items()
    )
    gold, said = sum(map(len, records)), sum(map(len, found))
    exact = sum(got == gold for got, gold in zip(found, records, strict=True))
    recall, precision = right / gold, right / max(said, 1)
    return (
        name,
        f"{100 * sum(valid(text, schema) for text in texts) / len(texts):.1f}",
        f"{100 * recall:.1f}",
        f"{100 * precision:.1f}",
        f"{100 * 2 * recall * precision / max(recall + precision, 1e-9):.1f}",
        f"{100 * exact / len(texts):.1f}",
        f"{seconds:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validation", required=True)
    parser.add_argument("--model", default="restaurant-json")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--steps", type=int, default=16)
    arguments = parser.parse_args()
    lines = [line for line, _ in read_lines(arguments.validation)]
    lines = lines[:: -(-len(lines) // arguments.limit)]
    records = [line["record"] for line in lines]
    pipeline = GuidedPipeline.from_pretrained(arguments.model)
    schema = json.loads((Path(locate(arguments.model)) / "schema.json").read_text(encoding="utf-8"))
    prompts = [as_prompt(line["text"]) for line in lines]
    rows = []
    for temperature in (0.0, 1.0):
        for name, wish in (("with the schema", JSONSchema(schema, whitespace="compact")), ("free", None)):
            began = time.perf_counter()
            options: Any = {"steps": arguments.steps, "temperature": temperature, "max_new_tokens": 64}
            out = pipeline(prompts, wish, **options)
            seconds = time.perf_counter() - began
            rows.append(extraction(f"{name}, temperature {temperature:g}", out.texts, records, schema, seconds))
            print(rows[-1], flush=True)
    header = ("text to record", "valid %", "slot accuracy %", "precision %", "F1 %", "exact %", "seconds")
    settings = conditions(model=arguments.model, n=len(lines), steps=arguments.steps, seed=0)
    publish("extraction", "Records from text", header, rows, settings)
    back = pipeline(
        [as_prompt(record_text(record)) for record in records],
        [Words(include=[record["name"]]) for record in records],
        steps=2 * arguments.steps,
        max_new_tokens=60,
    )
    values = [(text, value) for text, record in zip(back.texts, records, strict=True) for value in record.values()]
    shown = sum(value.lower() in text.lower() for text, value in values)
    named = sum(record["name"] in text for text, record in zip(back.texts, records, strict=True))
    print(f"record to text: name held {named} of {len(records)}, values word for word {shown} of {len(values)}")
    for record, text in list(zip(records, back.texts, strict=True))[:5]:
        print("-", record_text(record), "->", text)


if __name__ == "__main__":
    main()
