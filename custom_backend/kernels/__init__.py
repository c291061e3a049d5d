"""Faster kernels of the operations in `custom_backend.functional`, found by name; see `array.KERNELS`."""
