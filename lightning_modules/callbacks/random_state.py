"""Random state in checkpoints, which Lightning leaves out."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback


class RandomState(Callback):
    """Saves the state of every global generator, so that a resumed run draws what it would have drawn.

    Only plain containers and tensors: a checkpoint must load with ``weights_only=True``.
    """

    def state_dict(self) -> dict[str, Any]:
        """The states of Python's, NumPy's, torch's and every CUDA device's generator."""
        version, internal, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
        return {
            "python": (version, torch.tensor(internal), gauss),  # 625 numbers are slow to read one by one
            "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the states back."""
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(map(int, internal)), gauss))
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state_dict["torch"])
        if len(state_dict["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state_dict["cuda"])
