"""Nothing is silent for long: a progress bar on a terminal, a line from time to time in a log."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

from experiment.terminal import announced

Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items, with a bar once they have taken a second; where nobody watches, with lines."""
    if sys.stderr.isatty():
        yield from tqdm(items, title, unit="image", delay=1, leave=False)
        return
    number = 0
    with announced(lambda: f"{title}: {number:,} of {len(items):,}"):
        for number, item in enumerate(items, 1):  # noqa: B007 – said meanwhile
            yield item
