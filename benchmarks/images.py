"""Whether a million small image files are read in bounded memory, and start in seconds the second time."""

import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.timing import ROOT, Row, Settings

IMAGES, SIDE, CLASSES = 1_000_000, 8, 10
"""They take 4 GB and as many inodes in the folder of temporary files (TMPDIR)."""


def measure(settings: Settings) -> list[Row]:
    """Two starts of a training of two batches, from the shell to the end; the first one decodes."""
    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        print(f"writing {IMAGES:,} images", flush=True)
        write_images(folder / "images")
        for which in ("first", "second"):
            peaks: list[float] = []
            seconds = settings.seconds(partial(start, folder, peaks))
            rows += [
                Row(f"{IMAGES:,} images, {which} start", [seconds], "s"),
                Row(f"{which} start: private memory at the peak", peaks, "MB"),
            ]
    return rows


def start(folder: Path, peaks: list[float]) -> None:
    """Train, and note the most megabytes of its own that the process held."""
    arguments = ("model.widths=[8,8]", "data=image_folder", f"data.root={folder / 'images'}", "trainer=smoke")
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "callbacks.figures=null", "logger=none"]
    process, peak = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL), 0.0
    while process.poll() is None:
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) / 1024)
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"the training ended with code {process.returncode}")
    peaks.append(peak)


def write_images(folder: Path) -> None:
    """PNG files of random pixels, a tenth of them to test with."""
    random = np.random.default_rng(0)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    for part, images in (("train", IMAGES - IMAGES // 10), ("test", IMAGES // 10)):
        for label in range(CLASSES):
            (place := folder / part / f"class{label}").mkdir(parents=True)
            for index in range(images // CLASSES):
                rows = random.integers(256, size=(SIDE, 1 + 3 * SIDE), dtype=np.uint8)
                rows[:, 0] = 0  # the filter of a row: none
                pixels = _chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
                content = b"\x89PNG\r\n\x1a\n" + header + pixels + _chunk(b"IEND", b"")
                (place / f"{index:06}.png").write_bytes(content)


def _chunk(name: bytes, content: bytes) -> bytes:
    length, check = (struct.pack(">I", number) for number in (len(content), zlib.crc32(name + content)))
    return length + name + content + check
