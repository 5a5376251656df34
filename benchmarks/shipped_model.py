"""The figures on a shipped model's card: size, bound on held-out text, time to the first text, unpicked samples.

    python benchmarks/shipped_model.py --validation FILE [--model NAME] [--record FIELD] [--passes 4] [--limit N]

Nats are per token of text and its end; padding is not counted as tokens. `bound` is over all orders of the whole canvas
and pays for predicting the padding too; `length_first_bound` over the default sampler's: the end, then the text.
"""

import argparse
import time
from pathlib import Path

from _report import conditions, publish
from transformers import AutoTokenizer

from guided_dlm import GuidedPipeline
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.models import locate
from guided_dlm.training.data import encode_texts, read_texts
from guided_dlm.training.pairs import encode_pairs, read_pairs
from guided_dlm.training.trainer import evaluate_masked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validation", required=True)
    parser.add_argument("--model", default="restaurant-words")
    parser.add_argument("--record", help="the field with the record, for a model of text and record")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--limit", type=int, help="score this many held-out texts, evenly spread")
    arguments = parser.parse_args()
    began = time.perf_counter()
    pipeline = GuidedPipeline.from_pretrained(arguments.model)
    pipeline(num_samples=1)
    first = time.perf_counter() - began
    folder = locate(arguments.model)
    model, tokenizer = DiffusionTransformer.from_pretrained(folder).float(), AutoTokenizer.from_pretrained(folder)
    canvas = model.config.max_position_embeddings
    if arguments.record:
        texts: list = read_pairs(arguments.validation, arguments.record)
        examples = encode_pairs(texts, tokenizer, canvas)
    else:
        texts = read_texts(arguments.validation)
        examples = encode_texts(texts, tokenizer, canvas)
    fitting = len(examples)
    examples = examples[:: -(-fitting // (arguments.limit or fitting))]
    bound = evaluate_masked(model, examples, tokenizer.pad_token_id, passes=arguments.passes, progress=True)
    rows = [
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        ("vocabulary", len(tokenizer)),
        ("weights, MB", f"{sum(f.stat().st_size for f in Path(folder).glob('*.safetensors')) / 1e6:.1f}"),
        ("held-out texts scored", f"{len(examples)} of {len(texts)} ({len(texts) - fitting} exceed the canvas)"),
        ("bound, nats per token", f"{bound['bound']:.3f}"),
        ("length_first_bound, nats per token", f"{bound['length_first_bound']:.3f}"),
        ("seconds to the first text, load included", f"{first:.1f}"),
    ]
    settings = conditions(model=arguments.model, passes=arguments.passes, seed=0)
    publish(f"shipped_{arguments.model}", f"{arguments.model}", ("figure", "value"), rows, settings)
    prompts = [prompt for prompt, _ in texts[:10]] if arguments.record else [None] * 10
    for text in pipeline(prompts, seed=0).texts:
        print("-", text)


if __name__ == "__main__":
    main()
