"""Train a `SyntaxReader` on the noise of diffusion: tags and constituents of a model's own tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, Trainer, set_seed

from guided_dlm.errors import InvalidRequest
from guided_dlm.models import locate
from guided_dlm.parsing.reader import Reading, SyntaxReader, SyntaxReaderConfig
from guided_dlm.training.annotations import checked, tag_sets
from guided_dlm.training.data import CanvasCollator, read_lines
from guided_dlm.training.guides import guide_arguments, noise_generator, save_guide
from guided_dlm.vocabulary import Vocabulary

LEVELS = (0.0, 0.25, 0.5, 0.75)  # shares of noise at which held-out figures are reported


@dataclass(frozen=True, kw_only=True)
class SyntaxRecipe:
    """What `train_syntax_reader` needs: annotated texts, and the diffusion model whose tokens to read.

    Half of the canvases have masks and the other half random words where the noise is, so that one reader serves masked
    and uniform models.
    """

    data: str
    out: str
    model: str = "restaurant-words"
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    span_size: int = 16
    epochs: float = 4.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        for name in ("hidden_size", "layers", "heads", "span_size", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InvalidRequest(f"{name}={getattr(self, name)} must be positive.")
        if self.hidden_size % self.heads:
            raise InvalidRequest(
                f"hidden_size={self.hidden_size} does not split into {self.heads} heads; change either."
            )


class AnnotatedCollator:
    """Canvases with noise, each at a level of its own, and what stands in them without it."""

    def __init__(self, canvas: CanvasCollator, config: SyntaxReaderConfig, vocabulary: Vocabulary, seed: int) -> None:
        """Draw from the seed and the batch itself, as `CanvasCollator` does."""
        self.canvas, self.config, self.seed = canvas, config, seed
        self.mask_id, self.writable_V = vocabulary.mask_id, torch.tensor(vocabulary.writable, dtype=torch.float32)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return {"input_ids": int64 `[B, L]`, a tag set's name: int64 `[B, L]`, "spans": float `[B, L, L, K]`}."""
        tokens_BL = self.canvas(examples)["input_ids"]
        generator = noise_generator(self.seed, examples)
        level_B1 = torch.rand(len(examples), 1, generator=generator)
        noisy_BL = self.noisy(tokens_BL, level_B1, generator)
        return {"input_ids": noisy_BL, **self.answers(examples, tokens_BL.shape[1])}

    def noisy(self, tokens_BL: Tensor, level_B1: Tensor | float, generator: torch.Generator) -> Tensor:
        """Return the canvas with masks, or in every other row random words, at this share of its places."""
        hidden_BL = torch.rand(tokens_BL.shape, generator=generator) < level_B1
        random_N = self.writable_V.multinomial(tokens_BL.numel(), replacement=True, generator=generator)
        even_B1 = (torch.arange(len(tokens_BL)) % 2 == 0)[:, None]
        noise_BL = torch.where(even_B1, torch.tensor(self.mask_id), random_N.view(tokens_BL.shape))
        return torch.where(hidden_BL, noise_BL, tokens_BL)

    def answers(self, examples: list[dict[str, Any]], length: int) -> dict[str, Tensor]:
        """Return the tags, the end's class behind the text, and the constituents."""
        found: dict[str, Tensor] = {}
        for name, tags in self.config.tag_sets.items():
            tags_BL = torch.full((len(examples), length), len(tags))
            for row, example in enumerate(examples):
                tags_BL[row, : len(example[name])] = torch.tensor(example[name])
            found[name] = tags_BL
        spans_BLLK = torch.zeros(len(examples), length, length, len(self.config.labels))
        at = [(row, *span) for row, one in enumerate(examples) for span in one["spans"]]
        at_N4 = torch.tensor(at, dtype=torch.int64).view(-1, 4)
        spans_BLLK[tuple(at_N4.T)] = 1.0
        return found | {"spans": spans_BLLK}


def syntax_loss(reading: Reading, answers: dict[str, Tensor]) -> Tensor:
    """Return the mean over places of -log p of the tags, plus that of all spans that begin there, in nats."""
    losses = [F.cross_entropy(reading.tags[name].transpose(1, 2), answers[name]) for name in reading.tags]
    spans_BLLK = F.binary_cross_entropy_with_logits(reading.spans_BLLK, answers["spans"], reduction="none")
    forward_LL1 = _forward(spans_BLLK.shape[1]).to(spans_BLLK.device)
    return torch.stack([*losses, (spans_BLLK * forward_LL1).sum((2, 3)).mean()]).sum()


def _forward(length: int) -> Tensor:
    """Return bool `[L, L, 1]`: pairs of places whose second is not before the first."""
    return torch.ones(length, length, dtype=torch.bool).triu()[..., None]


class SyntaxTrainer(Trainer):
    """A `transformers.Trainer` for `syntax_loss`."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of one batch."""
        answers = {name: value for name, value in inputs.items() if name != "input_ids"}
        return syntax_loss(model(input_ids=inputs["input_ids"]), answers)


def train_syntax_reader(recipe: SyntaxRecipe, progress: bool = True) -> dict[str, Any]:
    """Train, and save model, tokenizer, recipe and figures in `recipe.out`; every twentieth text is held out.

    Texts whose words are not one token each are left out.

    Raises:
        InvalidRequest: a line is not what `python -m constraints.annotation` writes, too few texts are left, or the
            model's vocabulary has no mask.
        UnknownName: there is no such diffusion model.
    """
    set_seed(recipe.seed)
    where = locate(recipe.model)
    tokenizer = AutoTokenizer.from_pretrained(where)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    if vocabulary.mask_id is None:
        raise InvalidRequest(f"model={recipe.model!r} has no mask token, and half of the noise is masks; name another.")
    canvas = json.loads((Path(where) / "config.json").read_text())["max_position_embeddings"]
    lines = [checked(*line) for line in read_lines(recipe.data)]
    config = _config(recipe, lines, vocabulary, canvas)
    examples = [one for line in lines if (one := _encode(line, config, vocabulary, tokenizer)) is not None]
    if len(examples) < 20:
        raise InvalidRequest(
            f"{recipe.data!r}: in {len(examples)} of {len(lines)} texts each word is one token of {recipe.model!r}; "
            "at least 20 are needed. A model of whole words is read best."
        )
    held_out, kept = examples[::20], [one for i, one in enumerate(examples) if i % 20]
    model = SyntaxReader(config)
    collate = AnnotatedCollator(CanvasCollator(tokenizer.pad_token_id, canvas), config, vocabulary, recipe.seed)
    trainer = SyntaxTrainer(
        model=model, args=guide_arguments(recipe, progress), train_dataset=kept, data_collator=collate
    )
    trainer.train()
    figures = {f"noise_{level}": reading_figures(model, held_out, collate, level) for level in LEVELS}
    model.half()
    save_guide(recipe, tokenizer, trainer, figures)
    return {"texts": len(lines), "read": len(examples), "held_out": len(held_out), **figures}


@torch.inference_mode()
def reading_figures(
    model: SyntaxReader, examples: list[dict[str, Any]], collate: AnnotatedCollator, level: float
) -> dict[str, float]:
    """Return the share of words tagged rightly, by tag set, and F1 of spans called likelier than not, at one level."""
    model.eval()
    generator, right, words = torch.Generator().manual_seed(0), dict.fromkeys(collate.config.tag_sets, 0), 0
    both, found, gold = 0, 0, 0
    for begin in range(0, len(examples), 128):
        batch = examples[begin : begin + 128]
        tokens_BL = collate.canvas(batch)["input_ids"]
        answers = collate.answers(batch, tokens_BL.shape[1])
        reading = model(input_ids=collate.noisy(tokens_BL, level, generator).to(model.device))
        text_BL = torch.arange(tokens_BL.shape[1]) < torch.tensor([one["length"] - 1 for one in batch])[:, None]
        words += int(text_BL.sum())
        for name, logits_BLT in reading.tags.items():
            right[name] += int(((logits_BLT.argmax(-1).cpu() == answers[name]) & text_BL).sum())
        forward_LL1 = _forward(tokens_BL.shape[1])
        called_BLLK, is_BLLK = (reading.spans_BLLK > 0).cpu() & forward_LL1, answers["spans"] > 0
        both, found, gold = (
            count + int(which.sum())
            for count, which in ((both, called_BLLK & is_BLLK), (found, called_BLLK), (gold, is_BLLK))
        )
    return {name: count / words for name, count in right.items()} | {"spans_f1": 2 * both / max(1, found + gold)}


def _encode(
    line: dict[str, Any], config: SyntaxReaderConfig, vocabulary: Vocabulary, tokenizer: Any
) -> dict[str, Any] | None:
    """Return the numbers of tokens, tags and labels; None where a word is not one token, or the canvas is too short."""
    ids = tokenizer(line["text"], add_special_tokens=False)["input_ids"]
    if len(ids) >= config.max_position_embeddings:
        return None
    if [vocabulary.tokens[i].decode(errors="replace").strip() for i in ids] != line["words"]:
        return None
    tags = {name: [known.index(tag) for tag in line["tags"][name]] for name, known in config.tag_sets.items()}
    spans = [(first, last, config.labels.index(label)) for first, last, label in line["spans"]]
    return {"input_ids": [*ids, tokenizer.eos_token_id], "length": len(ids) + 1, "spans": spans, **tags}


def _config(
    recipe: SyntaxRecipe, lines: list[dict[str, Any]], vocabulary: Vocabulary, canvas: int
) -> SyntaxReaderConfig:
    return SyntaxReaderConfig(
        tag_sets=tag_sets(lines, recipe.data), labels=sorted({label for line in lines for *_, label in line["spans"]}),
        span_size=recipe.span_size, vocab_size=len(vocabulary), hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, intermediate_size=4 * recipe.hidden_size,
        max_position_embeddings=canvas, pad_token_id=vocabulary.pad_id, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
