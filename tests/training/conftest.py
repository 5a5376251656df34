"""What tests of training share: a few sentences in a file, and global generators left as they were."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SENTENCES


@pytest.fixture(autouse=True)
def same_random_state() -> object:
    """Training seeds the global generators, as `transformers` does; leave them as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.txt"
    path.write_text("\n".join(SENTENCES * 8))
    return path
