"""Measurements that anyone can repeat: `python -m benchmarks.engines`."""

import argparse


def positive(text: str) -> int:
    """A number of an option, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected int in [1, inf)")
    return int(text)
