"""What every optimizer's step does first."""

from collections.abc import Callable
from typing import Any

import torch


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """What ``closure`` returns, computed with gradients though a step records none; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
