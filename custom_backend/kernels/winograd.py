"""Convolution by 3 × 3 kernels with fewer products than im2col: 16 in place of 36 for 2 × 2 outputs.

A tile of 4 × 4 pixels d and a kernel g give 2 × 2 outputs as

    Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A,

where A and B hold nothing but 0, 1 and −1. Over channels and tiles, the product ⊙ is 16 matrix products
(outputs, inputs) @ (inputs, tiles · batch). ∂L/∂x is such a convolution again; ∂L/∂W is the formula read
backwards, Gᵀ [Σ (A ∂L/∂Y Aᵀ) ⊙ (Bᵀ d B)] G, with products (outputs, tiles · batch) @ (tiles · batch, inputs).
Winograd: Arithmetic complexity of computations (1980); Lavin, Gray: Fast algorithms for convolutional
neural networks (2016), F(2 × 2, 3 × 3).

Tiles lie two pixels apart; an array of transformed ones is (4, 4, channels, rows, columns, batch).

The sums bring a pixel into outputs whose window does not see it, where it cancels but for rounding. An
infinity would make NaN of its neighbours, and a number of 10³⁰ noise of 10²²: an array that holds one is left
to im2col, see `suits`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair, matmul
from custom_backend.functional.convolution import Geometry, output_size
from custom_backend.kernels.compiled import compiled
from custom_backend.kernels.im2col import blocks
from custom_backend.kernels.memory import empty
from custom_backend.kernels.parallel import PRODUCTS, split, split_sum

FloatArray = npt.NDArray[Any]
IntArray = npt.NDArray[Any]

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
OF_KERNEL = np.kron(G, G)  # (16, 9): g ↦ G g Gᵀ

FORWARD, BACKWARD = 12, 16  # bits, see `suits`; in training, images need 7, weights 4 and gradients 14


@compiled
def _measure(start: int, stop: int, bits: IntArray, mantissa: int, exponents: IntArray) -> None:
    """For each column: the greatest of the binary exponents, and their mean over what is not 0."""
    greatest, total = exponents[0, start:stop], exponents[1, start:stop]
    count = np.zeros(stop - start, bits.dtype)
    mask = bits.dtype.type((1 << 8 * bits.itemsize - 1) - 1)  # all but the sign
    for row in range(bits.shape[0]):
        seen = bits[row, start:stop]
        for n in range(seen.shape[0]):
            magnitude = seen[n] & mask
            greatest[n] = max(greatest[n], magnitude)
            total[n] += magnitude >> mantissa
            count[n] += magnitude != 0
    for n in range(stop - start):
        greatest[n] >>= mantissa
        total[n] = total[n] // max(count[n], 1) if greatest[n] else greatest[n]


def suits(x: FloatArray, spread: int) -> bool:
    """Whether no number of x (…, samples) is infinite, huge, or far greater than the others of its sample.

    Far: by more than `spread` bits than they are on the (geometric) average, zeros aside, for float32.
    """
    matrix, mantissa = np.ascontiguousarray(x).reshape(-1, x.shape[-1]), np.finfo(x.dtype).nmant
    bits = matrix.view(f"i{x.itemsize}")
    exponents, largest = np.zeros((2, x.shape[-1]), bits.dtype), np.finfo(x.dtype).maxexp
    split(_measure, x.shape[-1], x.size, bits, mantissa, exponents)
    widest = (exponents[0] - exponents[1]).max()
    return bool(widest <= spread + mantissa - 23 and exponents[0].max() < largest * 4 // 3)


@compiled
def _combine(a: FloatArray, b: FloatArray, sign: float, out: FloatArray) -> None:
    """a ± b."""
    for m in range(out.shape[0]):
        out[m] = a[m] + sign * b[m]


@compiled
def _combine_three(a: FloatArray, b: FloatArray, c: FloatArray, sign: float, out: FloatArray) -> None:
    """a ± b ± c, with one sign."""
    for m in range(out.shape[0]):
        out[m] = a[m] + sign * (b[m] + c[m])


@compiled
def _to_tiles(x: FloatArray, top: int, left: int, padding: Pair, batch: int, tiles: FloatArray) -> None:
    """Bᵀ d B for the tiles d of x (C, H, W · N) from tile (top, left) on; what sticks out is zero.

    Along each axis Bᵀ takes (d₀, d₁, d₂, d₃) to (d₀ − d₂, d₁ + d₂, d₂ − d₁, d₁ − d₃). Of a row of pixels,
    the even columns are gathered in row[0] and the odd ones in row[1], one more of each than there are tiles.
    """
    one = x.dtype.type(1)
    _, _, channels, height, length = tiles.shape
    row, nothing = np.zeros((2, length + batch), x.dtype), np.zeros(x.shape[2], x.dtype)
    even, odd, next_even, next_odd = row[0, :length], row[1, :length], row[0, batch:], row[1, batch:]
    begin = 2 * left - padding[1]  # the column of the image where the first tile begins
    first, last = max(begin, 0), min(begin + 2 * (length // batch + 1), x.shape[2] // batch)
    for c in range(channels):
        for r in range(height):
            h = 2 * (top + r) - padding[0]
            for i, (a, b, sign) in enumerate(((0, 2, -one), (1, 2, one), (2, 1, -one), (1, 3, -one))):
                upper = x[c, h + a] if 0 <= h + a < x.shape[1] else nothing
                lower = x[c, h + b] if 0 <= h + b < x.shape[1] else nothing
                for w in range(first, last):
                    here, to = slice(w * batch, (w + 1) * batch), (w - begin) // 2 * batch
                    _combine(upper[here], lower[here], sign, row[(w - begin) % 2, to : to + batch])
                _combine(even, next_even, -one, tiles[i, 0, c, r])
                _combine(odd, next_even, one, tiles[i, 1, c, r])
                _combine(next_even, odd, -one, tiles[i, 2, c, r])
                _combine(odd, next_odd, -one, tiles[i, 3, c, r])


@compiled
def _from_tiles(tiles: FloatArray, top: int, left: int, batch: int, y: FloatArray) -> None:
    """Write Aᵀ m A for the tiles m into y (C, H, W · N), whose last row and column may be half a tile.

    Along each axis Aᵀ takes (m₀, m₁, m₂, m₃) to (m₀ + m₁ + m₂, m₁ − m₂ − m₃).
    """
    one = y.dtype.type(1)
    _, _, channels, height, length = tiles.shape
    row = np.empty((4, length), y.dtype)
    for c in range(channels):
        for r in range(height):
            for i, sign in enumerate((one, -one)):
                h = 2 * (top + r) + i
                if h >= y.shape[1]:
                    continue
                for j in range(4):
                    of_row = tiles[i, j, c, r], tiles[i + 1, j, c, r], tiles[i + 2, j, c, r]
                    _combine_three(*of_row, sign, row[j])
                for s in range(length // batch):
                    tile = slice(s * batch, (s + 1) * batch)
                    at = 2 * (left + s) * batch
                    _combine_three(row[0, tile], row[1, tile], row[2, tile], one, y[c, h, at : at + batch])
                    at += batch
                    if at < y.shape[2]:
                        out = y[c, h, at : at + batch]
                        _combine_three(row[1, tile], row[2, tile], row[3, tile], -one, out)


@compiled
def _gradient_to_tiles(grad: FloatArray, top: int, left: int, batch: int, tiles: FloatArray) -> None:
    """A g Aᵀ for the 2 × 2 tiles g of grad (C, H, W · N) from tile (top, left) on; what sticks out is zero.

    Along each axis A takes (g₀, g₁) to (g₀, g₀ + g₁, g₀ − g₁, −g₁).
    """
    one = grad.dtype.type(1)
    _, _, channels, height, length = tiles.shape
    begin, end = 2 * left * batch, min(2 * (left * batch + length), grad.shape[2])
    row, nothing = np.zeros((2, length), grad.dtype), np.zeros(2 * length, grad.dtype)
    even, odd = row[0], row[1]
    for c in range(channels):
        for r in range(height):
            h = 2 * (top + r)
            first = grad[c, h, begin:end]
            second = grad[c, h + 1, begin:end] if h + 1 < grad.shape[1] else nothing
            pairs = (
                (first, nothing, one),
                (first, second, one),
                (first, second, -one),
                (nothing, second, -one),
            )
            for i, (a, b, sign) in enumerate(pairs):
                for s in range((end - begin) // batch):
                    at, tile = s * batch, s // 2 * batch
                    _combine(a[at : at + batch], b[at : at + batch], sign, row[s % 2, tile : tile + batch])
                _combine(even, nothing, one, tiles[i, 0, c, r])
                _combine(even, odd, one, tiles[i, 1, c, r])
                _combine(even, odd, -one, tiles[i, 2, c, r])
                _combine(nothing, odd, -one, tiles[i, 3, c, r])


def _tiles(size: Pair) -> Pair:
    """How many tiles make `size` outputs."""
    return -(-size[0] // 2), -(-size[1] // 2)


def _runs(array: FloatArray) -> FloatArray:
    """View width and batch as one axis."""
    return array.reshape(*array.shape[:-2], -1)


def _empty_tiles(channels: int, rows: slice, cols: slice, like: FloatArray) -> FloatArray:
    """Memory for the transformed tiles of a block."""
    shape = rows.stop - rows.start, cols.stop - cols.start, like.shape[3]
    return empty((4, 4, channels, *shape), like.dtype)


def _filter(x: FloatArray, kernels: FloatArray, size: Pair, padding: Pair) -> FloatArray:
    """Correlate x (C, H, W, N) with transformed kernels (16, O, C) to (O, *size, N).

    Of transformed tiles there are never more than `im2col.CACHE` bytes a thread (or one tile of each image).
    """
    (_, outputs, channels), batch = kernels.shape, x.shape[3]
    height, width = _tiles(size)
    x = np.ascontiguousarray(x)
    y, tile = empty((outputs, *size, batch), x.dtype), 16 * (channels + outputs) * batch * x.itemsize

    def multiply(start: int, stop: int) -> None:
        for rows, cols, _ in blocks(start, stop, width, batch, tile):
            before, after = _empty_tiles(channels, rows, cols, x), _empty_tiles(outputs, rows, cols, x)
            _to_tiles(_runs(x), rows.start, cols.start, padding, batch, _runs(before))
            np.matmul(kernels, before.reshape(16, channels, -1), out=after.reshape(16, outputs, -1))
            _from_tiles(_runs(after), rows.start, cols.start, batch, _runs(y))
            del before, after  # so that the next block lies in the same memory, which the cache still holds

    split(multiply, height * width, kernels.size * height * width * batch // PRODUCTS)
    return y


def correlate(x: FloatArray, weight: FloatArray, geometry: Geometry) -> FloatArray:
    """See `im2col.correlate`."""
    outputs, channels = weight.shape[:2]
    kernels = matmul(OF_KERNEL.astype(weight.dtype), weight.reshape(-1, 9).T)
    size = output_size(x.shape[1:3], *geometry.window)
    return _filter(x, kernels.reshape(16, outputs, channels), size, geometry.padding)


def input_gradient(
    shape: tuple[int, ...], weight: FloatArray, grad: FloatArray, geometry: Geometry
) -> FloatArray:
    """See `im2col.input_gradient`: grad is correlated with the kernels turned by 180°."""
    outputs, channels = weight.shape[:2]
    kernels = matmul(OF_KERNEL[:, ::-1].astype(weight.dtype), weight.reshape(-1, 9).T)
    turned = kernels.reshape(16, outputs, channels).swapaxes(1, 2)
    padding = 2 - geometry.padding[0], 2 - geometry.padding[1]
    return _filter(grad, turned, (shape[1], shape[2]), padding)


def weight_gradient(x: FloatArray, grad: FloatArray, geometry: Geometry) -> FloatArray:
    """See `im2col.weight_gradient`: Gᵀ [Σ (A g Aᵀ) ⊙ (Bᵀ d B)] G, the sum over tiles and images."""
    channels, outputs, batch = len(x), len(grad), x.shape[3]
    x, grad = np.ascontiguousarray(x), np.ascontiguousarray(grad)
    height, width = _tiles(grad.shape[1:3])
    tile = 16 * (channels + outputs) * batch * x.itemsize

    def multiply(start: int, stop: int) -> FloatArray:
        total, product = np.zeros((2, 16, outputs, channels), x.dtype)
        for rows, cols, _ in blocks(start, stop, width, batch, tile):
            before, after = _empty_tiles(channels, rows, cols, x), _empty_tiles(outputs, rows, cols, x)
            _to_tiles(_runs(x), rows.start, cols.start, geometry.padding, batch, _runs(before))
            _gradient_to_tiles(_runs(grad), rows.start, cols.start, batch, _runs(after))
            of_grad, of_x = after.reshape(16, outputs, -1), before.reshape(16, channels, -1)
            total += np.matmul(of_grad, of_x.swapaxes(1, 2), out=product)
            del before, after, of_grad, of_x  # see _filter
        return total

    total = split_sum(multiply, height * width, 16 * channels * outputs * height * width * batch // PRODUCTS)
    gradient: FloatArray = matmul(total.reshape(16, -1).T, OF_KERNEL.astype(x.dtype))
    return gradient.reshape(outputs, channels, 3, 3)
