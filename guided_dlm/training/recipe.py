"""One training run from a text file to a model folder: `guided-dlm train`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from guided_dlm.denoisers.block_modeling import BlockTransformer, BlockTransformerConfig
from guided_dlm.denoisers.latent_modeling import LatentTransformer, LatentTransformerConfig
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.denoisers.simplex_modeling import SimplexTransformer, SimplexTransformerConfig
from guided_dlm.errors import InvalidRequest
from guided_dlm.models import multiplies_bf16
from guided_dlm.processes.schedules import SCHEDULES
from guided_dlm.training.data import CanvasCollator, encode_texts, read_texts
from guided_dlm.training.labels import LabelDropout, read_labelled
from guided_dlm.training.objectives import WEIGHTINGS
from guided_dlm.training.pairs import Pair, encode_pairs, read_pairs
from guided_dlm.training.tokenization import build_bpe_tokenizer, build_word_tokenizer, unseen_fragments
from guided_dlm.training.trainer import OBJECTIVES, DiffusionTrainer
from guided_dlm.vocabulary import Vocabulary

Corpus = list[str] | list[Pair]
DEFAULT_SCHEDULES = {"gaussian": "sqrt", "simplex": "cosine_squared", "uniform": "linear"}
TIME_FEATURES = 64
_NOT_INHERITED = ("model_type", "architectures", "sampling")  # sampling defaults were chosen for the start
BLOCK_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Everything a run depends on; written next to the model as `recipe.json`.

    `data` and `validation` are text files or `datasets` names. `start` is a model folder to begin from (its tokenizer
    comes along); an autoregressive start for a masked model is expected and works, since outputs are aligned alike.
    `record` names a field with a JSON object beside each text: the model then learns to write the one as the completion
    of the other, both ways. With `clean` the records are first read again from their texts in so many folds
    (`clean_records`); values of the slots `swap` are changed for others while training, in text and record, so that
    none is guessed from the rest (`swap_values`), and a text is read `readings` times for each time that it is written,
    with swaps of its own. A share `onward` of a masked model's canvases is hidden from some place to the end, for
    writing left to right; `weighting` of its tokens, or a block model's, is "bound", as the bound on -log p has it, or
    "flat". `label` names a field with a text label: the label is the prompt of its text, and masked in a share
    `label_dropout` of the examples, for classifier-free guidance (not in an autoregressive run).
    A masked model with a `full_share` up to 0.5 of batches that are padded to the whole canvas does not read long
    padding when it samples (`reads_tail`). `validation_size` is how many held-out examples, evenly spread, each
    validation scores. `tokenizer` is "word" (`min_count` matters) or "bpe" (`vocab_size` does). `schedule` names the
    noise schedule of a uniform model ("linear" by default), a Gaussian one ("sqrt") or one on the simplex
    ("cosine_squared"); a masked model is trained at every share of masks and has none. `embedding_size` is the width
    of a Gaussian model's noisy embeddings. `block_length` is how many tokens a block model writes at a time (8 by
    default), or a simplex model (the whole canvas by default).
    """

    data: str
    out: str
    validation: str | None = None
    objective: str = "masked"
    schedule: str | None = None
    embedding_size: int = 16
    block_length: int | None = None
    start: str | None = None
    canvas: int = 64
    hidden_size: int = 256
    layers: int = 6
    heads: int = 4
    record: str | None = None
    clean: int = 0
    swap: Sequence[str] = ()
    readings: int = 1
    onward: float = 0.0
    weighting: str = "bound"
    label: str | None = None
    label_dropout: float = 0.1
    tokenizer: str = "word"
    min_count: int = 3
    vocab_size: int = 2048
    full_share: float = 0.25
    validation_size: int = 1000
    epochs: float = 10.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.03
    dropout: float = 0.0
    save_every: int = 500
    seed: int = 0
    bf16: bool | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown objective and sizes that cannot be, before anything is read."""
        if self.objective not in OBJECTIVES:
            raise InvalidRequest(f"There is no objective {self.objective!r}; choose one of {sorted(OBJECTIVES)}.")
        if self.schedule is not None:
            if self.objective not in DEFAULT_SCHEDULES:
                raise InvalidRequest(
                    f"schedule={self.schedule!r}: the {self.objective} objective has no noise schedule; leave it out."
                )
            if self.schedule not in SCHEDULES:
                raise InvalidRequest(f"There is no schedule {self.schedule!r}; choose one of {sorted(SCHEDULES)}.")
        if self.block_length is not None:
            if self.objective not in ("block", "simplex"):
                raise InvalidRequest(
                    f"block_length={self.block_length}: the {self.objective} objective has no blocks; leave it out."
                )
            if not 1 <= self.block_length <= self.canvas:
                raise InvalidRequest(
                    f"block_length={self.block_length} must be at least 1 and at most the canvas, {self.canvas}."
                )
        if self.tokenizer not in ("word", "bpe"):
            raise InvalidRequest(f"There is no tokenizer {self.tokenizer!r}; choose 'word' or 'bpe'.")
        if self.tokenizer == "bpe" and self.vocab_size < 300:
            raise InvalidRequest(f"vocab_size={self.vocab_size} is too small for the 256 bytes and merges of them.")
        if self.record and self.label:
            raise InvalidRequest(
                f"record={self.record!r} and label={self.label!r} both say what a text's prompt is; give one of them."
            )
        self._check_records()
        if not 0 <= self.label_dropout < 1:
            raise InvalidRequest(
                f"label_dropout={self.label_dropout} is a share of the examples; it must be in [0, 1)."
            )
        self._check_shares()
        if self.canvas < 2:
            raise InvalidRequest(f"canvas={self.canvas} leaves no room for a token and the end of the text.")
        counts = (
            "embedding_size",
            "readings",
            "hidden_size",
            "layers",
            "heads",
            "min_count",
            "epochs",
            "batch_size",
            "learning_rate",
            "save_every",
            "validation_size",
        )
        for name in counts:
            if not getattr(self, name) > 0:
                raise InvalidRequest(f"{name}={getattr(self, name)} must be positive.")
        if self.hidden_size % (2 * self.heads):
            raise InvalidRequest(
                f"hidden_size={self.hidden_size} does not split into {self.heads} heads of even width; change either."
            )
        if not 0 <= self.dropout < 1:
            raise InvalidRequest(f"dropout={self.dropout} must be in [0, 1).")

    def _check_shares(self) -> None:
        """Refuse shares that are none, and canvases hidden onward for a model that has no masks."""
        if not 0 <= self.onward <= 1 or (self.onward and self.objective != "masked"):
            raise InvalidRequest(
                f"onward={self.onward} is a share of a masked model's canvases: in [0, 1], and 0 for other objectives."
            )
        weighs = self.objective in ("masked", "block")
        if self.weighting not in WEIGHTINGS or (self.weighting != "bound" and not weighs):
            raise InvalidRequest(
                f"weighting={self.weighting!r} of a masked or block model's tokens is one of {', '.join(WEIGHTINGS)}; "
                "leave it out for other objectives."
            )
        if not 0 <= self.full_share <= 1:
            raise InvalidRequest(f"full_share={self.full_share} is a share of the batches; it must be in [0, 1].")

    def _check_records(self) -> None:
        """Refuse what is for records alone, and swaps of what is to be held out."""
        if isinstance(self.swap, str) or not all(isinstance(slot, str) for slot in self.swap):
            raise InvalidRequest(f"swap={self.swap!r} must be a list of slots of the records.")
        if (self.swap or self.clean or self.readings > 1) and not (self.record and self.validation):
            raise InvalidRequest(
                f"swap={self.swap!r}, clean={self.clean}, readings={self.readings}: they change what is trained on, "
                "not what is held out; give them with record, the field of the records, and with a validation file."
            )
        if self.clean < 0 or self.clean == 1:
            raise InvalidRequest(f"clean={self.clean} must be 0, or at least 2 folds, each read by the others.")

    def tails(self) -> dict[str, Any]:
        """Return the collator's tail settings: an autoregressive loss never reads the tail."""
        if self.objective == "autoregressive":
            return {"full_share": 0.0, "max_tail": 0}
        return {"full_share": self.full_share}


def make_model(recipe: TrainingRecipe, tokenizer: Any, never_written: list[int]) -> DiffusionTransformer:
    """Return a fresh model of the recipe's size, or the start model turned to the recipe's objective.

    What the start lacks is fresh; a time embedding is then without effect at first.
    """
    sizes = _fresh_sizes(recipe, tokenizer)
    if recipe.start:
        started, _ = DiffusionTransformerConfig.get_config_dict(recipe.start)
        sizes = {name: value for name, value in started.items() if name not in _NOT_INHERITED}
    sizes |= {"max_position_embeddings": recipe.canvas, "dropout": recipe.dropout}
    sizes |= {"causal": recipe.objective == "autoregressive", "never_written_ids": never_written}
    sizes |= {"reads_tail": recipe.objective != "masked" or recipe.full_share > 0.5}
    sizes |= _noise(recipe, tokenizer, never_written)
    config: DiffusionTransformerConfig
    kind: type[DiffusionTransformer]
    width = recipe.block_length
    if recipe.objective == "gaussian":
        kind, config = LatentTransformer, LatentTransformerConfig(**sizes | {"embedding_size": recipe.embedding_size})
    elif recipe.objective == "simplex":
        kind, config = SimplexTransformer, SimplexTransformerConfig(**sizes | {"block_length": width})
    elif recipe.objective == "block":
        default = min(BLOCK_LENGTH, recipe.canvas)
        kind, config = BlockTransformer, BlockTransformerConfig(**sizes | {"block_length": width or default})
    else:
        kind, config = DiffusionTransformer, DiffusionTransformerConfig(**sizes)
    if recipe.start:
        return kind.from_pretrained(recipe.start, config=config, dtype=torch.float32)
    return kind(config)


def _noise(recipe: TrainingRecipe, tokenizer: Any, never_written: list[int]) -> dict[str, Any]:
    """Return what the model's config says about its noise."""
    if recipe.objective not in DEFAULT_SCHEDULES:
        process = "block" if recipe.objective == "block" else "masked"
        return {"process": process, "schedule": "linear", "time_features": 0, "noiseless_ids": []}
    writable = Vocabulary.from_tokenizer(tokenizer, never_written).writable
    silent = [i for i, written in enumerate(writable.tolist()) if not written]
    return {
        "process": recipe.objective,
        "schedule": recipe.schedule or DEFAULT_SCHEDULES[recipe.objective],
        "time_features": TIME_FEATURES,
        "noiseless_ids": silent if recipe.objective == "uniform" else [],
    }


def _fresh_sizes(recipe: TrainingRecipe, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.hidden_size,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "intermediate_size": 64 * round(recipe.hidden_size * 8 / 3 / 64),
        "mask_token_id": tokenizer.mask_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def training_arguments(recipe: TrainingRecipe) -> TrainingArguments:
    """Return the recipe in the words of `transformers`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TrainingArguments(
        output_dir=str(Path(recipe.out) / "checkpoints"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="cosine",
        adam_beta2=0.98,
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        bf16=multiplies_bf16(device) if recipe.bf16 is None else recipe.bf16,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        remove_unused_columns=False,
        logging_steps=50,
        eval_strategy="steps",
        eval_steps=recipe.save_every,
        save_steps=recipe.save_every,
        save_total_limit=2,
        report_to=[],
        seed=recipe.seed,
        use_cpu=device == "cpu",
        dataloader_num_workers=0,
        dataloader_pin_memory=device == "cuda",
    )


def train(recipe: TrainingRecipe, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train and save model (fp16), tokenizer, `recipe.json` and `training.json` (curves and figures) in `recipe.out`.

    Raises:
        InvalidRequest: the data or the start model is not there, `out` is no folder, no text fits, or `resume` finds no
            checkpoint.
    """
    if recipe.start and not (Path(recipe.start) / "config.json").is_file():
        raise InvalidRequest(
            f"There is no model to start from in {recipe.start!r}; train one first, or leave out start."
        )
    out = Path(recipe.out)
    for folder in (out, *out.parents):
        if folder.exists() and not folder.is_dir():
            raise InvalidRequest(f"out={recipe.out!r}: {str(folder)!r} is a file; name a folder to write the model to.")
    set_seed(recipe.seed)
    corpus = _read(recipe, recipe.data, "train", progress)
    tokenizer = AutoTokenizer.from_pretrained(recipe.start) if recipe.start else _make_tokenizer(recipe, corpus)
    examples, held_out = _split(recipe, corpus, tokenizer)
    arguments = training_arguments(recipe)
    arguments.disable_tqdm = not progress
    checkpoint = _last_checkpoint(out / "checkpoints") if resume else None
    model = make_model(recipe, tokenizer, unseen_fragments(tokenizer, examples))
    trainer = DiffusionTrainer(
        model=model,
        held_out=held_out,
        objective=recipe.objective,
        options=objective_options(recipe),
        pad_id=tokenizer.pad_token_id,
        args=arguments,
        train_dataset=_drop_labels(recipe, examples, tokenizer),
        data_collator=CanvasCollator(tokenizer.pad_token_id, recipe.canvas, seed=recipe.seed, **recipe.tails()),
    )
    began = time.time()
    trainer.train(resume_from_checkpoint=checkpoint)
    figures = {"seconds": time.time() - began, **trainer.evaluate()}
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    (out / "training.json").write_text(json.dumps({"figures": figures, "log": trainer.state.log_history}, indent=1))
    return figures


def objective_options(recipe: TrainingRecipe) -> dict[str, Any] | None:
    """Return what the objective is told beside the canvases."""
    told = {"masked": ("onward", "weighting"), "block": ("weighting",)}.get(recipe.objective)
    return None if told is None else {name: getattr(recipe, name) for name in told}


def _read(recipe: TrainingRecipe, source: str, split: str, progress: bool = False) -> Corpus:
    if recipe.label:
        return read_labelled(source, recipe.label)
    if recipe.record and split == "train":
        return read_pairs(source, recipe.record, recipe.swap, recipe.readings, recipe.seed, recipe.clean, progress)
    if recipe.record:
        return read_pairs(source, recipe.record)
    return read_texts(source, split)


def _drop_labels(recipe: TrainingRecipe, examples: list[Any], tokenizer: Any) -> Any:
    """Return what to train on; an autoregressive model keeps its labels: it scores prompts, and would write masks."""
    if not recipe.label or recipe.objective == "autoregressive":
        return examples
    return LabelDropout(examples, tokenizer.mask_token_id, recipe.label_dropout, recipe.seed)


def _make_tokenizer(recipe: TrainingRecipe, corpus: Corpus) -> Any:
    texts = [item if isinstance(item, str) else "".join(item) for item in corpus]
    if recipe.tokenizer == "bpe":
        return build_bpe_tokenizer(texts, recipe.vocab_size)
    return build_word_tokenizer(texts, recipe.min_count)


def _split(recipe: TrainingRecipe, corpus: Corpus, tokenizer: Any) -> tuple[list[Any], list[Any]]:
    """Return the examples to train on and those held out."""
    if recipe.validation:
        held_out = _read(recipe, recipe.validation, "validation")
    else:
        share = max(2 if recipe.record else 1, len(corpus) // 20)
        corpus, held_out = corpus[share:], corpus[:share]
    encode: Any = encode_pairs if recipe.record or recipe.label else encode_texts
    kept = [encode(part, tokenizer, recipe.canvas) for part in (corpus, held_out)]
    for name, examples in zip(("train on", "validate with"), kept, strict=True):
        if not examples:
            raise InvalidRequest(
                f"There is no text to {name} that fits a canvas of {recipe.canvas} tokens; give more texts or a larger "
                "canvas."
            )
    stride = -(-len(kept[1]) // recipe.validation_size)
    stride |= bool(recipe.record)  # odd, or pairs would be held out in one direction only
    return kept[0], kept[1][::stride]


def _last_checkpoint(folder: Path) -> str:
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if found is None:
        raise InvalidRequest(f"There is no checkpoint under {folder}; run once without --resume.")
    return str(found)
