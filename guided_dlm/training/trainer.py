"""Train a denoiser: a transformers `Trainer` whose loss is one of `objectives`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import Trainer

from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.training.block import block, evaluate_block
from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.gaussian import evaluate_gaussian, gaussian
from guided_dlm.training.objectives import (
    Objective,
    any_order,
    autoregressive,
    length_first,
    length_nll,
    masked,
    weighted_nll,
)
from guided_dlm.training.simplex import evaluate_simplex, simplex
from guided_dlm.training.uniform import evaluate_uniform, uniform

OBJECTIVES: dict[str, Objective] = {
    "autoregressive": autoregressive,
    "block": block,
    "gaussian": gaussian,
    "masked": masked,
    "simplex": simplex,
    "uniform": uniform,
}


class DiffusionTrainer(Trainer):
    """A `transformers.Trainer` (so accelerate, torchrun and resuming come with it) for the losses of `objectives`.

    The loss is per token of text and end: the sum over canvases divided by the number of such tokens.
    """

    def __init__(
        self,
        model: DiffusionTransformer,
        held_out: list[dict[str, Any]],
        objective: str,
        pad_id: int,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take what `Trainer` takes, held-out examples, the objective by name, and `options` of it by name."""
        super().__init__(model=model, eval_dataset=held_out, **kwargs)
        self._net, self._held_out, self._pad_id = model, held_out, pad_id
        self._objective: Objective = partial(OBJECTIVES[objective], **(options or {}))

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return the objective in nats per token of text and end."""
        begin_B = inputs["begin"]
        loss_B = self._objective(model, inputs["input_ids"], inputs["length"], None, begin_B)
        scored_B = inputs["length"] if self._net.config.causal else inputs["length"] - begin_B
        return loss_B.sum() / scored_B.sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the validation figure of the objective, in nats per token, and log it."""
        figures = self._figures()
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self._net.train()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _figures(self) -> dict[str, float]:
        net, held_out, pad_id = self._net, self._held_out, self._pad_id
        if net.config.causal:
            return {"nll": evaluate_autoregressive(net, held_out, pad_id)}
        if net.config.process == "block":
            return evaluate_block(net, held_out, pad_id, passes=1)
        if net.config.process == "uniform":
            return evaluate_uniform(net, held_out, pad_id, passes=1)
        if net.config.process == "gaussian":
            return evaluate_gaussian(net, held_out, pad_id, passes=1)
        if net.config.process == "simplex":
            return evaluate_simplex(net, held_out, pad_id, passes=1)
        return evaluate_masked(net, held_out, pad_id, passes=1)


@torch.inference_mode()
def evaluate_autoregressive(model: Any, examples: list[dict[str, Any]], pad_id: int, batch_size: int = 128) -> float:
    """Return the mean -log p per token of text and end, in nats, under a causal model."""
    model.eval()
    total, count = 0.0, 0
    longest = max(example["length"] for example in examples)
    collate = CanvasCollator(pad_id, longest, full_share=0.0, max_tail=0)
    for batch in DataLoader(examples, batch_size=batch_size, collate_fn=collate):  # type: ignore[arg-type]
        batch = {name: value.to(model.device) for name, value in batch.items()}
        total += float(autoregressive(model, batch["input_ids"], batch["length"], None, None).sum())
        count += int(batch["length"].sum())
    return total / count


@torch.inference_mode()
def evaluate_masked(
    model: Any,
    examples: list[dict[str, Any]],
    pad_id: int,
    passes: int = 4,
    batch_size: int = 128,
    progress: bool = False,
) -> dict[str, float]:
    """Return figures on full canvases, in nats per token of text and end; prompts are seen and not scored.

    `bound` is the masked-diffusion bound on -log p(text, end), over all orders of the whole canvas: the padding's terms
    are in the sum (they pay for knowing the length), padding is not counted as tokens. `length_first_bound` is over the
    orders of the default sampler: where the end is, then the text in any order.
    """
    model.eval()
    generator = torch.Generator(model.device).manual_seed(0)
    collate = CanvasCollator(pad_id, model.config.max_position_embeddings, full_share=1.0)
    loader: DataLoader[Any] = DataLoader(examples, batch_size=batch_size, collate_fn=collate)  # type: ignore[arg-type]
    totals, count = {"bound": 0.0, "length_first_bound": 0.0}, 0
    for _ in tqdm(range(passes), desc="bound", disable=not progress):
        for batch in loader:
            tokens_BL, length_B, begin_B = (batch[name].to(model.device) for name in ("input_ids", "length", "begin"))
            for name, orders in (("bound", any_order), ("length_first_bound", length_first)):
                noise = orders(tokens_BL, length_B, generator, begin_B)
                totals[name] += float(weighted_nll(model, tokens_BL, *noise).sum())
            totals["length_first_bound"] += float(
                length_nll(model, tokens_BL, length_B, model.config.eos_token_id, begin_B).sum()
            )
            count += int((length_B - begin_B).sum())
    return {name: total / count for name, total in totals.items()}
