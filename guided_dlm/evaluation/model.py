"""The card of a model: figures of its texts, each beside the same figure of held-out and training text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import AutoTokenizer

from guided_dlm.arguments import check_counts
from guided_dlm.config import from_config
from guided_dlm.constraint import Constraint
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.errors import GuidedError, InvalidRequest
from guided_dlm.evaluation.card import HELD_OUT, SAMPLES, SHOWN, TRAINING, Card
from guided_dlm.evaluation.copying import copying, duplicates
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.evaluation.records import Record, mentioned_share, score_records
from guided_dlm.models import locate
from guided_dlm.pipeline import GuidedPipeline
from guided_dlm.training.block import evaluate_block
from guided_dlm.training.data import encode_texts, read_texts
from guided_dlm.training.gaussian import evaluate_gaussian
from guided_dlm.training.labels import read_labelled
from guided_dlm.training.pairs import Pair, as_prompt, encode_pairs, read_pairs, record_text
from guided_dlm.training.simplex import evaluate_simplex
from guided_dlm.training.trainer import evaluate_masked
from guided_dlm.training.uniform import evaluate_uniform

RECORD_FIELD = "record"
SCORED, PASSES = 500, 4  # how many texts the bound is of, and how often; one pass over 250 moves by 0.1
PLOTS = (".png", ".pdf", ".svg")
EVALUATIONS: dict[str, Callable[..., dict[str, float]]] = {
    "block": evaluate_block,
    "gaussian": evaluate_gaussian,
    "masked": evaluate_masked,
    "simplex": evaluate_simplex,
    "uniform": evaluate_uniform,
}
T = TypeVar("T")


class Item(NamedTuple):
    """A human text, with its record for a model of records, and its label for a model of labels."""

    text: str
    record: Record | None = None
    label: str | None = None

    @property
    def prompt(self) -> str | None:
        """What asks a model for this text."""
        if self.record is not None:
            return as_prompt(record_text(self.record))
        return None if self.label is None else as_prompt(self.label)


@dataclass(frozen=True, kw_only=True)
class CardRequest:
    """What to measure: `samples` texts of a model, and with which files; what needs a file that is None is left out.

    `validation` and `training` are files of texts, for a model with a `schema.json` of {"text", "record"} lines, and
    with `label` of {"text", label} lines; that the model was trained on labels is not checked. `judge` is a folder with
    an autoregressive model. Steps, sampler, corrector and temperature are the model's own by default; `guidance_scale`
    is that of classifier-free guidance.
    """

    model: str
    samples: int = 256
    steps: int | None = None
    sampler: str | None = None
    corrector: str | None = None
    temperature: float | None = None
    guidance_scale: float = 1.0
    seed: int = 0
    batch_size: int = 64
    judge: str | None = None
    validation: str | None = None
    training: str | None = None
    label: str | None = None
    device: str = "cpu"


def evaluate_model(
    request: CardRequest, out: str | Path | None = None, plot: str | Path | None = None, progress: bool = False
) -> Card:
    """Measure a model; write the card to the folder `out` and a histogram of lengths to `plot`, where they are given.

    Texts are sampled without a prompt and without a constraint; those of a model with a schema are written from
    held-out records, and records from held-out texts under the schema at temperature 0, from left to right. Those of a
    model of labels are written from the labels of held-out texts where `label` names their field, else from none.

    Raises:
        UnknownName: there is no such model, or no such sampler.
        InvalidRequest: a file is missing or is not what it should be, or an option is out of range.
    """
    check_counts(samples=request.samples)
    _prepare(out, plot)
    judge = None if request.judge is None else Judge(request.judge)
    pipeline = GuidedPipeline.from_pretrained(request.model, device=request.device)
    said = {name: getattr(request, name) for name in ("steps", "sampler", "corrector", "temperature")}
    used = asdict(pipeline.denoiser.sampling.fill(**said))
    schema = _read_schema(request)
    files = {HELD_OUT: request.validation, TRAINING: request.training}
    corpora = {column: _read(file, column, schema, request) for column, file in files.items() if file is not None}
    card = Card(settings={**asdict(request), **used, "torch": torch.__version__}, left_out=_missing(request, schema))
    chosen = _choose(card, pipeline, request, corpora)
    asked = chosen[HELD_OUT] if schema is not None or request.label else [Item("")] * request.samples
    sampled = _write(pipeline, request, [item.prompt for item in asked], progress)
    labels = [f"[{item.label}] " if item.label else "" for item in asked]
    card.samples.extend(map("".join, zip(labels[:SHOWN], sampled, strict=False)))
    texts = {SAMPLES: sampled} | {column: [item.text for item in items] for column, items in chosen.items()}
    for column, written in texts.items():
        card.add(column, {"texts": len(written)})
    _add_bounds(card, pipeline, request, corpora)
    for column, written in texts.items():
        _add_texts(card, column, written, judge)
    _add_ratios(card)
    if TRAINING in corpora:
        _add_copying(card, texts, [item.text for item in corpora[TRAINING]])
    if schema is not None:
        _add_records(card, sampled, chosen)
        _add_extraction(card, pipeline, request, chosen[HELD_OUT], schema, progress)
    if out is not None:
        card.write(out)
    if plot is not None:
        card.plot(plot)
    return card


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return that many items, evenly spread over all of them, in an order that does not follow theirs; at most all.

    What reads the first few of the result (self-BLEU does) so reads from the whole file.
    """
    count = min(count, len(items))
    chosen = [items[i * len(items) // count] for i in range(count)]
    random.Random(0).shuffle(chosen)
    return chosen


def _prepare(out: str | Path | None, plot: str | Path | None) -> None:
    """Refuse what could not be written, before an hour of sampling, and make the folders."""
    if plot is not None:
        if Path(plot).suffix not in PLOTS:
            raise InvalidRequest(f"plot={str(plot)!r}: the name says the format; end it in {', '.join(PLOTS)}.")
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise GuidedError("Plots need matplotlib: pip install 'guided-dlm[notebooks]'.") from error
    for name, folder in (("out", out), ("plot", None if plot is None else Path(plot).parent)):
        try:
            if folder is not None:
                Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"{name}: {str(folder)!r} is no folder to write to: {error.strerror}.") from error


def _read_schema(request: CardRequest) -> Record | None:
    """Return the schema beside a model's weights, if it has one."""
    path = Path(locate(request.model)) / "schema.json"
    if request.guidance_scale != 1.0 and request.label is None and not path.is_file():
        raise InvalidRequest(f"guidance_scale={request.guidance_scale} needs prompts: give label, the field of labels.")
    if request.label is not None and (path.is_file() or request.validation is None):
        raise InvalidRequest(
            f"label={request.label!r} is for a model whose prompts are labels, with --validation, a file of "
            f'{{"text", "{request.label}"}} lines.'
        )
    if not path.is_file():
        return None
    if request.validation is None:
        raise InvalidRequest(
            f"{request.model!r} writes texts from records; give --validation, a file of "
            f'{{"text", "{RECORD_FIELD}"}} lines.'
        )
    try:
        schema: Record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidRequest(f"{path} is no JSON: {error}.") from error
    return schema


def _read(file: str, column: str, schema: Record | None, request: CardRequest) -> list[Item]:
    if request.label is not None:
        return [Item(text, label=prompt.strip()) for prompt, text in read_labelled(file, request.label)]
    if schema is None:
        return [Item(text) for text in read_texts(file, "validation" if column == HELD_OUT else "train")]
    return [Item(text, json.loads(prompt)) for prompt, text in read_pairs(file, RECORD_FIELD)[1::2]]


def _missing(request: CardRequest, schema: Record | None) -> list[str]:
    """Return what cannot be measured, with what it takes."""
    beside = "text beside the samples: give a file of it"
    needs = {
        "nats per token under a judge: give one (--judge)": request.judge,
        f"the bound on held-out text, and held-out {beside} (--validation)": request.validation,
        f"copying, and training {beside} (--training)": request.training,
        "records from text, and text from records: the model has no schema.json beside its weights": schema,
    }
    return [what for what, given in needs.items() if given is None]


def _choose(
    card: Card, pipeline: GuidedPipeline, request: CardRequest, corpora: dict[str, list[Item]]
) -> dict[str, list[Item]]:
    """Return human texts to set beside the samples, as many; held-out ones with records are such as can be prompts."""
    chosen = {column: spread(corpus, request.samples) for column, corpus in corpora.items()}
    for column, corpus in corpora.items():
        if len(corpus) < request.samples:
            card.left_out.append(
                f"a fair view of duplicates and diversity: there are {len(corpus)} {column} texts, fewer than the "
                f"{request.samples} samples asked for"
            )
    held_out = chosen.get(HELD_OUT, [])
    if held_out and held_out[0].record is not None:
        encode, room = pipeline.denoiser.vocabulary.encode, _room(pipeline)
        sides = [(as_prompt(item.text), item.prompt or "") for item in held_out]
        fits = [all(len(encode(side)) <= room for side in both) for both in sides]
        if not any(fits):
            raise InvalidRequest(f"No text and record of the validation file fit {room} tokens, half the canvas.")
        if not all(fits):
            long = f"{fits.count(False)} of {len(fits)} held-out texts or records"
            card.left_out.append(f"{long}: as a prompt they take more than {room} tokens, half the canvas")
        chosen[HELD_OUT] = [item for item, fit in zip(held_out, fits, strict=True) if fit]
    return chosen


def _room(pipeline: GuidedPipeline) -> int:
    """Return how many tokens a prompt may take, and its completion too: half the canvas each."""
    assert pipeline.denoiser.capacity is not None  # models that are loaded by name have one
    return pipeline.denoiser.capacity // 2


def _write(
    pipeline: GuidedPipeline,
    request: CardRequest,
    prompts: Sequence[str | None],
    progress: bool,
    wish: Constraint | None = None,
    **changes: Any,
) -> list[str]:
    """Return a text for each prompt."""
    names = ("steps", "sampler", "corrector", "temperature", "guidance_scale", "seed", "batch_size")
    options = {name: getattr(request, name) for name in names}
    room = None if prompts[0] is None or request.label is not None else _room(pipeline)
    out = pipeline(prompts, wish, max_new_tokens=room, progress=progress, **options | changes)
    if out.stopped:
        raise KeyboardInterrupt
    return out.texts


def _add_bounds(card: Card, pipeline: GuidedPipeline, request: CardRequest, corpora: dict[str, list[Item]]) -> None:
    """Add what the trainer calls validation figures, of human text in each corpus."""
    denoiser = pipeline.denoiser
    assert isinstance(denoiser, TransformerDenoiser)  # all that can be loaded by name are
    tokenizer, config = AutoTokenizer.from_pretrained(locate(request.model)), denoiser.model.config
    for column, corpus in corpora.items():
        items = spread(corpus, SCORED)
        examples = _encode(items, tokenizer, config.max_position_embeddings)
        expected = sum(1 if item.record is None else 2 for item in items)
        if len(examples) < expected:
            card.left_out.append(
                f"{expected - len(examples)} of {expected} {column} texts from the bound: they do not fit the canvas"
            )
        if examples:
            figures = EVALUATIONS[config.process](denoiser.model, examples, tokenizer.pad_token_id, passes=PASSES)
            card.add(column, {f"{name}, nats per token": value for name, value in figures.items()})
            card.add(column, {"texts that the model scored": len(examples)})


def _encode(items: list[Item], tokenizer: Any, canvas: int) -> list[dict[str, Any]]:
    pairs: list[Pair] = []
    for item in items:
        if item.record is not None:
            pairs.append((as_prompt(item.text), record_text(item.record)))
        if item.prompt is not None:
            pairs.append((item.prompt, item.text))
    if pairs:
        return encode_pairs(pairs, tokenizer, canvas)
    return encode_texts([item.text for item in items], tokenizer, canvas)


def _add_texts(card: Card, column: str, texts: list[str], judge: Judge | None) -> None:
    """Add what can be said of texts alone."""
    if judge is not None:
        written = [text for text in texts if text.strip()]
        try:
            card.add(column, {"judge, nats per token": judge.nll(written)} if written else {})
        except InvalidRequest as error:  # texts that are too long for it
            card.left_out.append(f"the judge on {column}: {error}")
    words = [len(text.split()) for text in texts]
    card.words[column] = words
    varied = diversity(texts)
    quantiles = {f"words, {q} % quantile": float(np.quantile(words, q / 100)) for q in (5, 50, 95)}
    figures = {
        "empty texts": words.count(0),
        "words, mean": float(np.mean(words)),
        "words, standard deviation": float(np.std(words)),
        **quantiles,
        "duplicates, share": duplicates(texts),
        "distinct-1": varied.unigrams,
        "distinct-2": varied.bigrams,
        "distinct-3": varied.trigrams,
        "self-BLEU": varied.self_bleu,
    }
    card.add(column, figures)


def _add_ratios(card: Card) -> None:
    mean = card.figures["words, mean"]
    for column in mean:
        if column != SAMPLES:
            card.add(column, {"words, samples' mean over this mean": mean[SAMPLES] / mean[column]})


def _add_copying(card: Card, texts: dict[str, list[str]], training: list[str]) -> None:
    for column in (SAMPLES, HELD_OUT):
        if column in texts:
            found = copying(texts[column], training)
            card.add(column, {"copied run of words, mean": found.mean_run, "copied run, longest": found.longest_run})
            card.add(column, {"verbatim training texts, share": found.verbatim})


def _add_records(card: Card, sampled: list[str], chosen: dict[str, list[Item]]) -> None:
    """Add how many of a record's values its text mentions: the sampled one, and the human ones."""
    texts = {SAMPLES: sampled} | {column: [item.text for item in items] for column, items in chosen.items()}
    for column, written in texts.items():
        records = [item.record or {} for item in chosen[HELD_OUT if column == SAMPLES else column]]
        card.add(column, {"values of the record in its text, share": mentioned_share(written, records)})


def _add_extraction(
    card: Card, pipeline: GuidedPipeline, request: CardRequest, items: list[Item], schema: Record, progress: bool
) -> None:
    """Add how right the records are that the model reads off held-out texts."""
    wish = from_config({"constraint": "json_schema", "schema": schema, "whitespace": "compact"})
    prompts = [as_prompt(item.text) for item in items]
    options: dict[str, Any] = {"temperature": 0.0, "corrector": "none", "guidance_scale": 1.0}
    if pipeline.denoiser.process.selects and pipeline.denoiser.block_length is None:
        # How long a record is follows from what it says, so its length cannot come first.
        options |= {"block_length": 2, "steps": 2}
    card.settings["records"] = ", ".join(f"{name} {value}" for name, value in options.items())
    written = _write(pipeline, request, prompts, progress, wish, **options)
    scores = score_records(written, [item.record or {} for item in items], schema)
    for name, value in asdict(scores).items():
        card.add(SAMPLES, {f"records from text, {name.replace('_', ' ')}": value})
