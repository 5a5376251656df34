"""A small problem with everything known: a joint law, and a classifier that is right at every noise level."""

import itertools

import torch
from oracles import canvases
from torch import Tensor, nn

from guided_dlm import Vocabulary

PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=3)
MASK = 3
CLASSES = 3


class NoisyClassifier(nn.Module):
    """p(y | canvas with masks) = E[p(y | x) | x agrees with the canvas], by enumeration; class logits [N, K]."""

    def __init__(self, joint: Tensor, seed: int = 0, table: Tensor | None = None) -> None:
        super().__init__()
        size, length = joint.shape[0], joint.dim()
        if table is None:
            generator = torch.Generator().manual_seed(seed)
            table = (2 * torch.randn(CLASSES, size**length, generator=generator, dtype=torch.float64)).softmax(0)
        self.given_text = table
        every = canvases(size, length)
        rows = []
        for canvas in every:
            possible = ((canvas == MASK) | (every == canvas)).all(1) * joint.flatten()
            rows.append(table @ possible / possible.sum().clamp_min(1e-300))
        log_p = torch.stack(rows).clamp_min(1e-30).log()
        self.log_p = log_p.reshape(*[size] * length, -1)

    def forward(self, tokens_NLV: Tensor) -> Tensor:
        return self.log_p[tuple(tokens_NLV.argmax(-1).T)]


def pick_coins(q_LV: Tensor, hidden: list[int], share: float, last: bool) -> list[tuple[tuple[int, ...], float]]:
    """Every set of positions, with its probability under independent coins."""
    sets = [s for n in range(len(hidden) + 1) for s in itertools.combinations(hidden, n)]
    return [(s, share ** len(s) * (1 - share) ** (len(hidden) - len(s))) for s in sets]
