"""Training, prediction, and a state on disk."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from custom_backend.array import Array, State, library, namespace
from custom_backend.functional.loss import cross_entropy_backward, cross_entropy_forward
from custom_backend.layers import Entries, Layer


def fit(
    network: Layer,
    state: State,
    x: Array,
    labels: Array,
    optimizer: Any,
    *,
    rng: np.random.Generator,
    epochs: int = 1,
    batch_size: int = 128,
) -> Iterator[float]:
    """Train on x (…, samples) and labels (samples,) with cross-entropy, one epoch for each value taken.

    Yields the mean loss of the epoch. `state` and what the optimizer keeps change in place.

        for epoch, loss in enumerate(fit(network, state, x, labels, Adam(lr=1e-3), rng=rng, epochs=5)):
            print(f"epoch {epoch}: loss {loss:.3f}")
    """
    for _ in range(epochs):
        order, total = rng.permutation(x.shape[-1]), 0.0
        for start in range(0, len(order), batch_size):
            rows = namespace(x).asarray(order[start : start + batch_size])
            logits, saved = network.forward(state, x[..., rows], training=True, rng=rng)
            loss, saved_loss = cross_entropy_forward(logits, labels[rows])
            grad = cross_entropy_backward(saved_loss)
            _, gradients = network.backward(saved, grad, needs_input_grad=False)
            optimizer.step(state, gradients)
            total += float(loss) * len(rows)
        yield total / len(order)


def predict(network: Layer, state: State, x: Array, batch_size: int = 512) -> Array:
    """The outputs (…, samples) in evaluation, a batch at a time."""
    starts = range(0, x.shape[-1], batch_size)
    outputs = [network.forward(state, x[..., start : start + batch_size])[0] for start in starts]
    return namespace(x).concat(outputs, axis=-1)


def save(state: State, path: str | Path) -> None:
    """Write a state as a safetensors file, which torch reads, too. Needs the package `safetensors`."""
    from safetensors.numpy import save_file

    arrays = {name: array.get() if library(array) == "cupy" else array for name, array in state.items()}
    unfinished = f"{path}.part"
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, unfinished)
    os.replace(unfinished, path)  # noqa: PTH105  # a whole file or none


def load(path: str | Path) -> Entries:
    """The state in a safetensors file, as NumPy arrays."""
    from safetensors.numpy import load_file

    return dict(load_file(path))
