"""What is special about a terminal: a last line that goes away again, and lines that fit its width."""

from __future__ import annotations  # see entry_point.py

import gc
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count, repeat
from textwrap import wrap

PATIENCE = 1.5
"""Seconds after which something is said of what takes long."""

ERASE = "\r\033[K"
"""Takes the last, unfinished line away."""


def width() -> int:
    """Columns that a line may fill; two are left for the ``^C`` that a terminal shows."""
    return shutil.get_terminal_size().columns - 3


def say(text: str) -> None:
    """Print what is also in files: whoever has read enough (``| head``) does not end what goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_output()


def end_with_reader() -> None:
    """Have the program end when what it prints is read no more, as others do."""
    if hasattr(signal, "SIGPIPE"):  # Windows has none
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def discard_output() -> None:
    """Have what is still to be printed, and what is buffered, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Wrapped(logging.Formatter):
    """Breaks lines between words where the terminal ends, and indents what follows."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        lines = super().format(record).splitlines()
        kept = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
        return "\n".join(part for line in lines for part in wrap(line, width(), **kept) or [""])  # type: ignore[arg-type]


def wrap_log() -> None:
    """Have log records that are printed on a terminal fit it; files keep whole lines."""
    for handler in logging.getLogger().handlers:
        stream = getattr(handler, "stream", None)
        if stream in (sys.stdout, sys.stderr) and stream.isatty():
            handler.setFormatter(Wrapped())


@contextmanager
def meanwhile(act: Callable[[], None], waits: Iterable[float]) -> Iterator[None]:
    """Act in a thread after each of the ``waits`` in seconds, for as long as the block lasts."""
    done = threading.Event()

    def work() -> None:
        for wait in waits:
            if done.wait(wait):
                return
            act()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()


@contextmanager
def announced(words: Callable[[], str]) -> Iterator[None]:
    """Say what is being done once it has taken more than a second, and again from time to time.

    On a terminal the line is kept up to date, and gone in the end.
    """
    is_terminal = sys.stderr.isatty()

    def speak() -> None:
        line = f"{ERASE}{words()[: width()]}" if is_terminal else f"{words()}\n"
        print(line, end="", file=sys.stderr, flush=True)

    later = repeat(0.5) if is_terminal else (PATIENCE * 2**number for number in count(1))
    try:
        with meanwhile(speak, chain([PATIENCE], later)):
            yield
    finally:
        if is_terminal:
            print(ERASE, end="", file=sys.stderr, flush=True)


@contextmanager
def loading(what: str = "torch", *, is_quiet: bool = False) -> Iterator[None]:
    """Say on a terminal what is being loaded, which takes seconds, for as long as it takes.

    Args:
        what: name of the module.
        is_quiet: from here on the log goes to files only, as that of a sweep's job does.
    """
    for handler in logging.getLogger().handlers if is_quiet else ():
        handler.setLevel(logging.CRITICAL + 1)
    if what in sys.modules:
        yield
        return
    collects, handlers = gc.isenabled(), logging.getLogger().handlers[:] if sys.stderr.isatty() else []

    def erase(*_: object) -> bool:
        print(ERASE, end="", file=sys.stderr, flush=True)
        return True

    for handler in handlers:
        handler.addFilter(erase)  # a warning starts a line of its own
    if sys.stderr.isatty():
        print(f"loading {what} …", end="", file=sys.stderr, flush=True)
    gc.disable()  # a fifth of the time of an import: each look takes longer, and none finds anything
    try:
        yield
    finally:
        if what in sys.modules:  # what was imported is there to stay, and not to be looked through again
            gc.freeze()
        if collects:
            gc.enable()
        if sys.stderr.isatty():
            erase()
        for handler in handlers:
            handler.removeFilter(erase)
