"""The earlier name of `convolution`."""

from custom_backend.functional.convolution import *  # noqa: F403
