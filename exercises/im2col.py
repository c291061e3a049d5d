"""im2col: lay out what every window of a convolution sees, and its transpose, col2im.

A kernel (kh, kw) moves over an image in a border of `padding` zeros, `stride` pixels at a time. There are
H' = ⌊(H + 2 padding − kh) / stride⌋ + 1 windows along the height, and likewise W' along the width.

Task 1: `im2col` returns a matrix with a column for every window and sample,

    columns[(c, i, j), (r, s, n)] = padded[c, r · stride + i, s · stride + j, n].

Task 2: `col2im` is the transpose of that linear map. A pixel that im2col copied to several places gets the
sum of what is in those places; the border is cut off at the end.

Shapes (the batch is the LAST axis, as everywhere in this course; kernel, stride and padding are pairs
(height, width)): x (C, H, W, N) ↔ columns (C·kh·kw, H'·W'·N), rows in the order (C, kh, kw), columns in
(H', W', N).
A loop over the kh · kw places of the kernel is enough: each is one slice of the padded image.

Check: python grade.py exercises/im2col.py
Afterwards compare with `im2col` and `col2im` in custom_backend/functional/convolution.py.
"""

import numpy as np

Pair = tuple[int, int]


def im2col(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """x (C, H, W, N) → columns (C·kh·kw, H'·W'·N)."""
    raise NotImplementedError


def col2im(
    columns: np.ndarray, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    """columns (C·kh·kw, H'·W'·N) → an image of `shape` (C, H, W, N)."""
    raise NotImplementedError
