"""How fast this processor trains in bfloat16: ``python -m lightning_modules.bfloat16`` prints a ratio."""

import time

import torch
from torch import nn


def bfloat16_ratio(rounds: int = 3, seconds: float = 1.0) -> float:
    """How many times as fast as in float32 a training step of a convolution is under bfloat16 autocast.

    Args:
        rounds: steps in each format, one after the other; the fastest count.
        seconds: after which no further round begins.
    """
    conv = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    images = torch.rand(16, 64, 16, 16).contiguous(memory_format=torch.channels_last)
    took: dict[bool, list[float]] = {False: [], True: []}
    began = time.perf_counter()
    for number in range(rounds + 1):
        for is_bfloat16, times in took.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
                loss = conv(images).float().square().mean()
            loss.backward()
            if number:  # the first round warms up
                times.append(time.perf_counter() - start)
        if number and time.perf_counter() - began > seconds:
            break
    return min(took[False]) / min(took[True])


if __name__ == "__main__":
    print(bfloat16_ratio())
