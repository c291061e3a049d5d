"""The mathematics as pure functions: `f_forward(x, …) → (y, saved)` and `f_backward(saved, grad)`.

`grad` is ∂L/∂y, the gradient of the loss L by the function's value, and backward returns that by its
arguments. What `saved` holds is between the two halves of a pair.
"""
