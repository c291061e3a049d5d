"""What the CuPy kernels are made of: kernels of one thread an output element, which no two threads share.

Where the reference implementation scatters, a kernel gathers: each element looks for what belongs to it. Sums
have a fixed order, so results repeat exactly. A body is C++ on `i`, the position of the element in the
output, that means the same on a CPU.
"""

import cupy

from custom_backend.array import Pair

CUDA_KERNELS: dict[str, cupy.ElementwiseKernel] = {}

GEOMETRY = "int64 kh, int64 kw, int64 sh, int64 sw, int64 ph, int64 pw, int64 dh, int64 dw"

# Of the entries (ki, kj) of a window, those meet pixel (h, w) where row and column divide evenly.
MEETING = """
    T sum = 0;
    for (ptrdiff_t ki = 0; ki < kh; ++ki) {
        ptrdiff_t r = (h + ph - ki * dh) / sh;
        if (h + ph < ki * dh || r * sh != h + ph - ki * dh || r >= rows) continue;
        for (ptrdiff_t kj = 0; kj < kw; ++kj) {
            ptrdiff_t s = (w + pw - kj * dw) / sw;
            if (w + pw < kj * dw || s * sw != w + pw - kj * dw || s >= cols) continue;
            %s
        }
    }
    out = sum;
    """


def elementwise_kernel(name: str, inputs: str, outputs: str, axes: str, body: str) -> cupy.ElementwiseKernel:
    """A kernel that takes `i` apart into a coordinate for each of `axes`, "last:size … first"."""
    code = "ptrdiff_t rest = i;\n"
    for axis in axes.split():
        coordinate, _, size = axis.partition(":")
        code += f"ptrdiff_t {coordinate} = rest"
        code += f" % {size}; rest /= {size};\n" if size else ";\n"
    CUDA_KERNELS[name] = cupy.ElementwiseKernel(inputs, outputs, code + body, f"custom_backend_{name}")
    return CUDA_KERNELS[name]


def sizes(shape: tuple[int, ...], size: Pair) -> tuple[int, ...]:
    """The height, width, batch, rows, cols for an image of `shape` and an output of `size`."""
    return *shape[1:], *size
