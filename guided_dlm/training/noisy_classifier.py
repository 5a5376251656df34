"""Train a classifier on the noise of masked diffusion: it reads a model's own tokens, masks among them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, Trainer, set_seed

from guided_dlm.errors import InvalidRequest
from guided_dlm.models import locate
from guided_dlm.training.data import CanvasCollator, encode_texts, read_lines
from guided_dlm.training.guides import guide_arguments, noise_generator, save_guide

LEVELS = (0.0, 0.25, 0.5, 0.75)  # shares of masks at which held-out accuracy is reported


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """What `train_classifier` needs: lines of {"text", label}, and the diffusion model whose tokens to read."""

    data: str
    out: str
    model: str = "restaurant-words"
    label: str = "label"
    hidden_size: int = 64
    layers: int = 2
    heads: int = 2
    epochs: float = 5.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


class NoisyCollator:
    """Canvases with masks: each example has a noise level of its own, uniform in [0, 1]."""

    def __init__(self, canvas: CanvasCollator, mask_id: int, seed: int = 0) -> None:
        """Draw from the seed and the batch itself, as `CanvasCollator` does."""
        self.canvas, self.mask_id, self.seed = canvas, mask_id, seed

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return {"input_ids": int64 `[B, L]`, "labels": int64 `[B]`}."""
        tokens_BL = self.canvas(examples)["input_ids"]
        generator = noise_generator(self.seed, examples)
        level_B1 = torch.rand(len(examples), 1, generator=generator)
        hidden_BL = torch.rand(tokens_BL.shape, generator=generator) < level_B1
        labels_B = torch.tensor([example["label"] for example in examples])
        return {"input_ids": tokens_BL.masked_fill(hidden_BL, self.mask_id), "labels": labels_B}


def train_classifier(recipe: ClassifierRecipe, progress: bool = True) -> dict[str, Any]:
    """Train, and save model, tokenizer, recipe and figures in `recipe.out`; every twentieth line is held out.

    Raises:
        InvalidRequest: a line has no text or label, there are fewer than two labels, or too few lines to hold some out.
        UnknownName: there is no such diffusion model.
    """
    set_seed(recipe.seed)
    where = locate(recipe.model)
    tokenizer = AutoTokenizer.from_pretrained(where)
    canvas = json.loads((Path(where) / "config.json").read_text())["max_position_embeddings"]
    labels, examples = _read(recipe, tokenizer, canvas)
    held_out, kept = examples[::20], [one for i, one in enumerate(examples) if i % 20]
    model = BertForSequenceClassification(_config(recipe, tokenizer, canvas, labels))
    collate = NoisyCollator(CanvasCollator(tokenizer.pad_token_id, canvas), tokenizer.mask_token_id, recipe.seed)
    trainer = Trainer(model=model, args=guide_arguments(recipe, progress), train_dataset=kept, data_collator=collate)
    trainer.train()
    clean = CanvasCollator(tokenizer.pad_token_id, canvas, full_share=1.0)
    figures = {
        f"accuracy_{level}": accuracy(model, held_out, clean, tokenizer.mask_token_id, level) for level in LEVELS
    }
    save_guide(recipe, tokenizer, trainer, figures)
    return {"labels": labels, "held_out": len(held_out), **figures}


@torch.inference_mode()
def accuracy(model: Any, examples: list[dict[str, Any]], collate: CanvasCollator, mask_id: int, level: float) -> float:
    """Return the share of examples classified rightly with this share of their canvas masked."""
    model.eval()
    generator, right = torch.Generator().manual_seed(0), 0
    for begin in range(0, len(examples), 128):
        batch = examples[begin : begin + 128]
        tokens_BL = collate(batch)["input_ids"]
        tokens_BL[torch.rand(tokens_BL.shape, generator=generator) < level] = mask_id
        found_B = model(input_ids=tokens_BL.to(model.device)).logits.argmax(-1).cpu()
        right += int((found_B == torch.tensor([example["label"] for example in batch])).sum())
    return right / len(examples)


def _read(recipe: ClassifierRecipe, tokenizer: Any, canvas: int) -> tuple[list[str], list[dict[str, Any]]]:
    texts, names = [], []
    for line, where in read_lines(recipe.data):
        text, label = line.get("text"), line.get(recipe.label)
        if not isinstance(text, str) or not text.strip() or not isinstance(label, str | int):
            raise InvalidRequest(f'{where}: expected a "text" and a label {recipe.label!r}, got {str(line)[:80]}.')
        texts.append(" ".join(text.split()))
        names.append(str(label))
    labels = sorted(set(names))
    if len(labels) < 2 or len(texts) < 20:
        raise InvalidRequest(
            f"{recipe.data!r} has {len(texts)} lines and {len(labels)} labels; it needs at least 20 lines and 2 labels."
        )
    examples = []
    for text, name in zip(texts, names, strict=True):
        examples += [one | {"label": labels.index(name)} for one in encode_texts([text], tokenizer, canvas)]
    return labels, examples


def _config(recipe: ClassifierRecipe, tokenizer: Any, canvas: int, labels: list[str]) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden_size, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, intermediate_size=4 * recipe.hidden_size, max_position_embeddings=canvas + 2,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
        pad_token_id=tokenizer.pad_token_id, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
