"""The time and the memory of a training step, engine beside engine.

    python -m benchmarks.engines --network mnist --batch 128 --json engines.json
    python -m benchmarks.engines --device cuda

Each engine works in a process of its own, so that thread pools and memory of one do not disturb another, and
waits its turn: a round is a few steps of every engine in turn, so that what else the machine does falls on
all alike. Printed are the median over rounds with its quartiles and the ratio to the fastest float32 that
torch has, which on a CPU is channels_last (torch's default order of axes stands beside it): wall time with
`--threads` threads, process CPU time with one; the memory that training adds at its peak; and, for a chain
of layers, forward and backward of each kind with one thread. On a GPU: the wall time alone, until the device
has finished.
"""

import argparse
import importlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

from threadpoolctl import threadpool_info

import custom_backend as cb
from benchmarks import positive

Times: TypeAlias = dict[str, float]  # what was measured → seconds
NETWORKS = {
    "mnist": ((1, 28, 28), (32, 64, 128), 3),
    "cifar": ((3, 32, 32), (32, 64, 128, 128, 256), 3),
    "resnet": ((3, 32, 32), (16, 32, 64), 0),  # model=resnet
}
ENGINES = {
    "torch": "torch eager",
    "torch_channels_last": "torch channels_last",
    "numpy": "NumPy alone",
    "numpy_bridge": "NumPy, bridge, Lightning",
    "fast": "NumPy + numba alone",
    "fast_bridge": "NumPy + numba, bridge, Lightning",
}
GPU_ENGINES = {
    "torch": "torch eager",
    "torch_channels_last": "torch channels_last",
    "cupy": "CuPy alone",
    "cupy_bridge": "CuPy, bridge, Lightning",
}
LAYERS = {"torch_layers": "torch", "numpy_layers": "NumPy", "fast_layers": "NumPy + numba"}


def network(nn: Any, name: str) -> Any:
    """Convolutions with normalisation, LeakyReLU and, for the first few, pooling; then one dense layer."""
    (channels, _, _), widths, pooled = NETWORKS[name]
    if name == "resnet":
        return residual_network(nn, widths)
    layers: list[Any] = []
    for number, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.LeakyReLU(0.01)]
        layers += [nn.MaxPool2d(2)] if number < pooled else []
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels, 10)]
    return nn.Sequential(*layers)


def residual_network(nn: Any, widths: tuple[int, ...]) -> Any:
    """The network of model=resnet, two blocks a stage."""
    if nn is not cb:
        from lightning_modules.networks.resnet import resnet

        return resnet(nn, (3, 32, 32), 10, widths=widths, blocks=2, dropout=0.0, init="torch")

    def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> cb.Conv2d:
        return cb.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    inputs, layers = widths[0], [convolution(3, widths[0])]  # type: int, list[cb.Layer]
    for outputs in widths:
        for stride in (1 if outputs == widths[0] else 2, 1):
            before = [cb.BatchNorm2d(inputs), cb.ReLU()]
            body = [convolution(inputs, outputs, 3, stride), cb.BatchNorm2d(outputs), cb.ReLU()]
            body.append(convolution(outputs, outputs))
            if inputs == outputs:
                layers.append(cb.Residual(cb.Sequential(*before, *body)))
            else:  # the shortcut begins after the activation, too
                shortcut = convolution(inputs, outputs, 1, stride)
                layers += [*before, cb.Residual(cb.Sequential(*body), shortcut)]
            inputs = outputs
    head = [cb.BatchNorm2d(inputs), cb.ReLU(), cb.AdaptiveAvgPool2d(1), cb.Flatten()]
    return cb.Sequential(*layers, *head, cb.Linear(inputs, 10))


def train_torch(name: str, batch: int, channels_last: bool, device: str, steps: Iterable[None]) -> None:
    """Train the network of torch."""
    import torch

    torch.set_default_device(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = network(torch.nn, name).to(memory_format=layout)
    x = torch.randn(batch, *NETWORKS[name][0]).to(memory_format=layout)
    labels = torch.randint(10, (batch,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(x[:2])  # what is loaded at the first call is no memory of training
    for _ in steps:
        optimizer.zero_grad()
        loss: torch.Tensor = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def train_library(name: str, batch: int, device: str, steps: Iterable[None]) -> None:
    """Train the network of custom_backend, by itself."""
    import numpy as np

    xp = importlib.import_module("cupy" if device == "cuda" else "numpy")
    rng, model, adam = np.random.default_rng(0), network(cb, name), cb.Adam(lr=1e-3)
    state = {name: xp.asarray(array) for name, array in model.init(rng).items()}
    x = xp.asarray(rng.normal(size=(*NETWORKS[name][0], batch)).astype(np.float32))
    labels = xp.asarray(rng.integers(10, size=batch))
    model.forward(state, x[..., :2], training=True, rng=rng)  # see train_torch
    for _ in steps:
        logits, saved = model.forward(state, x, training=True, rng=rng)
        _, saved_loss = cb.cross_entropy_forward(logits, labels)
        _, gradients = model.backward(saved, cb.cross_entropy_backward(saved_loss), needs_input_grad=False)
        adam.step(state, gradients)


def train_bridge(name: str, batch: int, device: str, steps: Iterable[None]) -> None:
    """Train the network of custom_backend as a torch module, with its own Adam, under Lightning's trainer."""
    import lightning
    import torch

    from lightning_modules import bridge, optim

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(bridge.namespace("auto"), name)
            self.loss = bridge.CustomCrossEntropyLoss()

        def training_step(self, task: list[torch.Tensor], _: int) -> torch.Tensor:
            loss: torch.Tensor = self.loss(self.network(task[0]), task[1])
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optim.CustomAdam(self.parameters(), lr=1e-3)

    class Batches:
        def __iter__(self) -> Iterator[list[torch.Tensor]]:
            x = torch.randn(batch, *NETWORKS[name][0], device=device)
            task = [x, torch.randint(10, (batch,), device=device)]
            classifier.network(task[0][:2])  # see train_torch
            for _ in steps:
                yield task

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator=device, max_epochs=1, logger=False, **quiet)  # type: ignore[arg-type]
    classifier = Classifier()
    trainer.fit(classifier, Batches())


def layers_of_torch(name: str, batch: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each layer of torch's network: its type, and a function that goes forward and backward through it."""
    import torch

    def both(layer: torch.nn.Module, x: torch.Tensor) -> None:
        inputs = [tensor for tensor in (x, *layer.parameters()) if tensor.requires_grad]
        y = layer(x)
        torch.autograd.grad(y, inputs, torch.ones_like(y))

    x = torch.randn(batch, *NETWORKS[name][0])
    for number, layer in enumerate(network(torch.nn, name)):
        yield type(layer).__name__, partial(both, layer, x.detach().requires_grad_(number > 0))
        x = layer(x)


def layers_of_library(name: str, batch: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """As `layers_of_torch`, of custom_backend."""
    import numpy as np

    def both(layer: cb.Layer, state: dict[str, Any], x: Any, needs_input_grad: bool) -> None:
        y, saved = layer.forward(state, x, True, rng)
        layer.backward(saved, np.ones_like(y), needs_input_grad)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(*NETWORKS[name][0], batch)).astype(np.float32)
    for number, layer in enumerate(network(cb, name)):
        state = layer.init(rng)
        yield type(layer).__name__, partial(both, layer, state, x, number > 0)
        x, _ = layer.forward(state, x, True, rng)


def by_layer(layers: Iterable[tuple[str, Callable[[], Any]]]) -> Times:
    """The CPU seconds of a step through each type of layer."""
    times: Times = {}
    for kind, both in layers:
        start = time.process_time()
        both()
        times[kind] = times.get(kind, 0) + time.process_time() - start
    return times


def work(engine: str, name: str, batch: int, steps: int, device: str) -> None:
    """A worker process: for each line on stdin, do `steps` steps and print what they took as JSON."""
    if engine.startswith("numpy"):
        sys.modules["numba"] = None  # type: ignore[assignment]  # as where it is not installed
    answers, sys.stdout = sys.stdout, sys.stderr
    before = 0
    wait: Callable[[], None] = lambda: None  # noqa: E731
    if device == "cuda":
        wait = importlib.import_module("torch").cuda.synchronize

    def answer(times: list[Times]) -> None:
        measured = {what: statistics.median(step[what] for step in times) for what in times[0]}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps({"times": measured, "megabytes": peak / 1024}), file=answers, flush=True)

    def rounds() -> Iterator[None]:
        nonlocal before
        for number, _ in enumerate(sys.stdin):
            if number == 0:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                yield  # Lightning fetches one batch ahead
            times = []
            for _ in range(steps):
                wall, cpu = time.perf_counter(), time.process_time()
                yield
                wait()
                times.append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
            answer(times)

    if engine in LAYERS:
        layers = [*(layers_of_torch if engine.startswith("torch") else layers_of_library)(name, batch)]
        for _ in sys.stdin:
            answer([by_layer(layers) for _ in range(steps)])
    elif engine.startswith("torch"):
        train_torch(name, batch, engine.endswith("last"), device, rounds())
    else:
        (train_bridge if engine.endswith("bridge") else train_library)(name, batch, device, rounds())


class Worker:
    """An engine in a process of its own."""

    def __init__(self, engine: str, options: argparse.Namespace, threads: int) -> None:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engines", "--worker", engine]
        for option in ("network", "batch", "steps", "device"):
            command += [f"--{option}", str(getattr(options, option))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **limits}, **pipes)  # type: ignore[call-overload]
        self.rounds: list[Times] = []
        self.megabytes = 0.0
        self.round()
        self.rounds.clear()  # warming up

    def round(self) -> None:
        """Have it do a round, and keep what that took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended: {self.process.args!r}")
        result = json.loads(line)
        self.rounds.append(result["times"])
        self.megabytes = result["megabytes"]

    def quartiles(self, what: str) -> list[float]:
        """The lower quartile, the median and the upper quartile over rounds, in milliseconds."""
        times = (1000 * times[what] for times in self.rounds)
        return statistics.quantiles(times, n=4, method="inclusive")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:  # closes the pipes, and waits
            self.process.kill()


def measured(engines: Iterable[str], options: argparse.Namespace, threads: int) -> dict[str, Worker]:
    """All engines after `options.rounds` interleaved rounds."""
    with ExitStack() as stack:
        workers = {engine: stack.enter_context(Worker(engine, options, threads)) for engine in engines}
        for _ in range(options.rounds):
            for worker in workers.values():
                worker.round()
    return workers


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print the tables, and return them."""
    result: dict[str, Any] = {"network": options.network, "batch": options.batch, "threads": options.threads}
    blas = [x["architecture"] for x in threadpool_info() if x["internal_api"] == "openblas"]
    result["openblas"] = blas  # which of its kernels it chose, or was told to by OPENBLAS_CORETYPE
    print(
        f"{options.network}, batch {options.batch}; {options.rounds} rounds of {options.steps} steps; {blas}"
    )
    on_gpu = options.device == "cuda"
    for what, threads in [("wall", options.threads)] + [("cpu", 1)] * (not on_gpu):
        workers = measured(GPU_ENGINES if on_gpu else ENGINES, options, threads)
        base = min(workers[engine].quartiles(what)[1] for engine in ("torch", "torch_channels_last"))
        title = f"{what} time of a step, {threads} threads"
        print(f"\n{title:<36} {'ms':>6} {'quartiles':>16} {'÷ fastest torch':>16} {'MB':>6}")
        result[what] = {}
        for engine, worker in workers.items():
            low, middle, high = worker.quartiles(what)
            entry = {"ms": middle, "low": low, "high": high, "ratio": middle / base, "MB": worker.megabytes}
            result[what][engine] = entry
            print(
                f"{(ENGINES | GPU_ENGINES)[engine]:<36} {middle:>6.1f} {f'{low:.1f}–{high:.1f}':>16}", end=" "
            )
            print(f"{middle / base:>16.2f} {worker.megabytes:>6.0f}")
    if on_gpu or options.network == "resnet":  # which is no chain of layers that have a name in each engine
        return result
    workers = measured(LAYERS, options, 1)
    kinds = list(workers["torch_layers"].rounds[0])
    result["layers"] = {e: {kind: w.quartiles(kind)[1] for kind in kinds} for e, w in workers.items()}
    print(f"\n{'cpu ms by layer, 1 thread':<28}" + "".join(f"{LAYERS[engine]:>24}" for engine in workers))
    for kind in kinds:
        columns = ((times[kind], times[kind] / sum(times.values())) for times in result["layers"].values())
        print(f"{kind:<28}" + "".join(f"{ms:>16.2f} ({share:>4.0%})" for ms, share in columns))
    return result


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="mnist")
    parser.add_argument("--batch", type=positive, default=128)
    parser.add_argument("--threads", type=positive, default=2, help="for the wall time")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--steps", type=positive, default=3, help="steps of a round")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the same as JSON to this file")
    parser.add_argument("--worker", choices=(*ENGINES, *GPU_ENGINES, *LAYERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.network, options.batch, options.steps, options.device)
        return
    if options.device == "cuda" and not importlib.import_module("torch").cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here")
    result = report(options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
