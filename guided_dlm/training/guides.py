"""What training runs of small guides share: settings, the noise's generator, and the folder they write."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments


def guide_arguments(recipe: Any, progress: bool) -> TrainingArguments:
    """Return the settings of a run without checkpoints: a cosine schedule after a short warm-up."""
    return TrainingArguments(
        output_dir=str(Path(recipe.out) / "checkpoints"), num_train_epochs=recipe.epochs, seed=recipe.seed,
        per_device_train_batch_size=recipe.batch_size, learning_rate=recipe.learning_rate, warmup_steps=0.05,
        lr_scheduler_type="cosine", remove_unused_columns=False, logging_steps=50, save_strategy="no", report_to=[],
        disable_tqdm=not progress, dataloader_pin_memory=False,
    )  # fmt: skip


def noise_generator(seed: int, examples: list[dict[str, Any]]) -> torch.Generator:
    """Return a generator that follows from the seed and the batch itself, as the draws of `CanvasCollator` do."""
    draw = random.Random(f"{seed} noise {[example['input_ids'] for example in examples]}")
    return torch.Generator().manual_seed(draw.getrandbits(62))


def save_guide(recipe: Any, tokenizer: Any, trainer: Trainer, figures: dict[str, Any]) -> None:
    """Write model, tokenizer, recipe, and figures with the log, to `recipe.out`."""
    out, model = Path(recipe.out), trainer.model
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    (out / "training.json").write_text(json.dumps({"figures": figures, "log": trainer.state.log_history}, indent=1))
