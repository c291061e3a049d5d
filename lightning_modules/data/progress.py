"""Nothing is silent for long: a progress bar on a terminal, a line in a log."""

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

MANY = 10_000
"""Items that take more than a second or two."""

Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items, with a bar once they have taken a second; where nobody watches, a line if there are many."""
    if not sys.stderr.isatty() and len(items) > MANY:
        log.info(f"{title}: {len(items):,}")
    yield from tqdm(items, title, unit="image", delay=1, disable=not sys.stderr.isatty(), leave=False)
