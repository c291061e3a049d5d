"""docs/custom_backend.md: its Python blocks run, in order, and its excerpts are the code."""

import inspect
import re
import textwrap
from pathlib import Path

from custom_backend.functional.activation import sigmoid_backward

PAGE = (Path(__file__).parents[2] / "docs/custom_backend.md").read_text()


def test_every_python_block_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/custom_backend.md", "exec"), names)
    rows = re.findall(r"^\d+ → \d+ [\d,]+ [\d,]+ [\d,]+$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 5
    for row in rows:  # those of the second table of bytes
        convolution, *numbers = re.fullmatch(r"(\d+ → \d+) (.*)", row).groups()
        for number in numbers[0].split():
            assert re.search(rf"\| {convolution} \|.*\b{number}\b", PAGE), row


def test_an_excerpt_is_the_code():
    (excerpt,) = re.findall(r"```python\n(def sigmoid_backward.*?)```", PAGE, re.DOTALL)
    body = inspect.getsource(sigmoid_backward).partition("\n")[2]
    assert textwrap.dedent(excerpt.partition("\n")[2]) == textwrap.dedent(body)
