"""A model of blocks small enough to enumerate: a joint of which it shows what a block needs."""

from typing import Any

import torch
from oracles import canvases, random_joint
from torch import Tensor

from guided_dlm import Vocabulary
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser
from guided_dlm.processes import MaskedProcess

VOCABULARY = Vocabulary.from_tokens([b"a", b"b", b"", b""], eos_id=2, mask_id=3)
LENGTH = 4
JOINT = random_joint(4, LENGTH, seed=0, text=[0, 1, 2])


class BlockDenoiser(Denoiser):
    """Knows a joint, and of it only what a block needs: marginals given the prompt and the block's own tokens."""

    vocabulary, process, capacity, full_support = VOCABULARY, MaskedProcess(mask_id=3), LENGTH, False
    device = torch.device("cpu")

    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        every, mass_N = canvases(4, LENGTH), JOINT.flatten()
        seen_BL = torch.cat([canvas.prompt_BP, self.process.known(canvas)], dim=1)
        width = seen_BL.shape[1]
        fits_BN = ((every[:, :width] == seen_BL[:, None]) | (seen_BL[:, None] < 0)).all(-1)
        onehot_NLV = torch.nn.functional.one_hot(every[:, canvas.prompt_BP.shape[1] : width], 4).double()
        return torch.einsum("bn,nlv->blv", fits_BN * mass_N, onehot_NLV).log(), None
