"""What a network is made of: shapes, parameters and floating-point operations."""

import math
from collections.abc import Iterator

from custom_backend.array import Shape
from custom_backend.layers import Layer
from custom_backend.network import Container, Sequential


def parameters(layer: Layer) -> int:
    """How many numbers training changes; running statistics do not count."""
    trained = (shape for name, shape in layer.shapes.items() if name.endswith(("weight", "bias")))
    return sum(math.prod(shape) for shape in trained)


def summary(network: Layer, shape: Shape) -> str:
    """A table of the layers for one sample of `shape`, such as (channels, height, width).

    FLOPs are those of a forward pass, of matrix products alone: a multiplication and an addition count two.
    """
    rows = [("layer", "output", "parameters", "FLOPs"), *_rows("", network, shape)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {output:<{widths[1]}}  {count:>{widths[2]}}  {flops:>{widths[3]}}"
        for name, output, count, flops in rows
    )


def _rows(name: str, layer: Layer, shape: Shape) -> Iterator[tuple[str, str, str, str]]:
    """A line for the layer, then those of its parts, further to the right."""
    output = " × ".join(map(str, layer.output_shape(shape)))
    label = f"{name}: {type(layer).__name__}" if name else type(layer).__name__
    yield label, output, f"{parameters(layer):,}", f"{layer.flops(shape):,}"
    if isinstance(layer, Container):
        for child, part in layer.children.items():
            for row in _rows(child, part, shape):
                yield "  " + row[0], *row[1:]
            if isinstance(layer, Sequential):
                shape = part.output_shape(shape)
