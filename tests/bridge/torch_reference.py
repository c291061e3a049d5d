"""The same networks of torch and of the library, from the same seed."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lightning_modules import bridge

ENGINE = bridge.namespace("auto")


def network(nn: Any, dropout: float = 0.0) -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.01),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.SELU(),
        nn.AvgPool2d(2, stride=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(12, 8, bias=False),
        nn.Sigmoid(),
        nn.Linear(8, 5),
    )


def both(dtype: torch.dtype = torch.float64) -> SimpleNamespace:
    torch.manual_seed(0)
    theirs = network(nn).to(dtype)
    torch.manual_seed(0)
    return SimpleNamespace(theirs=theirs, ours=network(ENGINE).to(dtype))


def batch(dtype: torch.dtype = torch.float64, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 2, 13, 11, dtype=dtype), torch.randint(5, (size,))
