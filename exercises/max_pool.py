"""Max-pooling, forward and backward.

Task 1: y[c, r, s, n] is the greatest value of the window that begins at row r · stride − padding and column
s · stride − padding. Pixels outside the image count as −∞: they never win.

Task 2: given g = ∂L/∂y, every output hands its gradient to the one pixel it was copied from,

    ∂L/∂x[pixel] = Σ g over all windows whose maximum is this pixel.

Windows may overlap (stride smaller than kernel), so contributions add up. Of equal values in a window the
first, row by row, takes the whole gradient.

Shapes (batch last; kernel, stride and padding are pairs (height, width)): x (C, H, W, N), y and g
(C, H', W', N) with H' = ⌊(H + 2 padding − kh) / stride⌋ + 1, and likewise W'.

Check: python grade.py exercises/max_pool.py
Afterwards compare with `max_pool2d_forward` and `max_pool2d_backward` in
custom_backend/functional/pooling.py.
"""

import numpy as np

Pair = tuple[int, int]


def max_pool2d_forward(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """x (C, H, W, N) → y (C, H', W', N)."""
    raise NotImplementedError


def max_pool2d_backward(
    x: np.ndarray, grad: np.ndarray, kernel: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    """Return ∂L/∂x (C, H, W, N), where `grad` is ∂L/∂y."""
    raise NotImplementedError
