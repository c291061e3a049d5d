"""Convolution, backward.

With x in a border of `padding` zeros, the forward pass is, for output channel o, row r, column s, sample n,

    y[o, r, s, n] = b[o] + Σ_{c,i,j} W[o, c, i, j] · padded[c, r · stride + i, s · stride + j, n].

Task: given g = ∂L/∂y, return the gradients ∂L/∂x, ∂L/∂W and ∂L/∂b. With X = im2col(x), and W and g read as
matrices (O, C·kh·kw) and (O, H'·W'·N), the forward pass is Y = W X + b, so that

    ∂L/∂W = g Xᵀ        ∂L/∂X = Wᵀ g        ∂L/∂b = the sum of g over rows, columns and samples,

and col2im brings ∂L/∂X back to ∂L/∂x. Take im2col and col2im from your im2col.py (`from im2col import …`), or
loop over the places (i, j) of the kernel.

Shapes (batch last; stride and padding are pairs (height, width)): x (C, H, W, N), W (O, C, kh, kw),
g (O, H', W', N) → ∂L/∂x as x, ∂L/∂W as W, ∂L/∂b (O,).

Check: python grade.py exercises/conv.py
Afterwards compare with `conv2d_backward` in custom_backend/functional/convolution.py.
"""

import numpy as np

Pair = tuple[int, int]


def conv2d_backward(
    x: np.ndarray, weight: np.ndarray, grad: np.ndarray, stride: Pair, padding: Pair
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (∂L/∂x, ∂L/∂W, ∂L/∂b), where `grad` is ∂L/∂y."""
    raise NotImplementedError
