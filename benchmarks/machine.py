"""What is on, or off, by default because of the machine: memory format, compiler, memory that is kept."""

import os
import subprocess
import sys
from functools import partial

import torch

from benchmarks.timing import ROOT, Row, Settings, ratio
from experiment.errors import UserError
from lightning_modules import compose
from lightning_modules.build import build_network, build_optimizer, compile_network


class Training:
    """Steps of a network on random images, in one of the ways that there are.

    Args:
        device: where.
        batch: images a step.
        *overrides: of the configuration.
        is_channels_last: whether the channels of a pixel are neighbours in memory, as the project has them.
    """

    def __init__(self, device: str, batch: int, *overrides: str, is_channels_last: bool = True) -> None:
        config = compose(*overrides)
        network = build_network(config, (3, 32, 32), 10).to(device)
        if not is_channels_last:
            network = network.to(memory_format=torch.contiguous_format)
        compile_network(config, network)
        self.network, self.optimizer = network, build_optimizer(config.optimizer, network)
        self.images = torch.rand(batch, 3, 32, 32, device=device)
        self.labels = torch.randint(10, (batch,), device=device)

    def step(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.network(self.images), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


SECONDS_OF_A_STEP = """
import time
from benchmarks.machine import Training

training = Training("cpu", 1000, "model=fast", "model.widths=[16,64,64]")
training.step()
begun = time.CLOCK()
training.step()
print(time.CLOCK() - begun)
"""


def in_a_process(clock: str, is_kept: bool) -> float:
    """Seconds of a step of 1,000 images, with the memory of the one before it or with new one."""
    code = SECONDS_OF_A_STEP.replace("CLOCK", "perf_counter" if clock == "wall" else "process_time")
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    if not is_kept:
        variables["GLIBC_TUNABLES"] = ""  # sets nothing, but is the user's, whose choice is left alone
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=variables
    )
    return float(done.stdout)


def measure(settings: Settings) -> list[Row]:
    """Each beside its opposite: how many times as long a step takes without it."""
    rows = []
    for name in ("enhanced", "fast"):
        make = partial(Training, settings.device, 64, f"model={name}")
        trainings = {"format": make(is_channels_last=False), "default": make()}
        try:
            trainings["compiled"] = make("trainer.compile=true")
        except UserError as missing:
            print(f"left out: {missing}", flush=True)
        times = settings.interleaved({way: training.step for way, training in trainings.items()})
        titles = {"format": "torch's own memory format, to channels_last", "compiled": "compiled, to not"}
        for way in sorted(times.keys() - {"default"}):
            rows.append(ratio(f"{name}: {titles[way]}", times[way], times["default"]))
    if settings.device == "cpu" and sys.platform == "linux":
        times = settings.in_turn(
            {
                "given back": partial(in_a_process, settings.clock, is_kept=False),
                "kept": partial(in_a_process, settings.clock, is_kept=True),
            }
        )
        name = "narrow fast, batches of 1,000: memory given back, to kept"
        rows.append(ratio(name, times["given back"], times["kept"]))
    return rows
