"""The Python blocks of custom_backend.md and contributing.md run, in order, and excerpts are the code."""

import inspect
import re
import textwrap
from pathlib import Path

import torch
from torch import nn

import custom_backend as cb
from custom_backend import layers
from custom_backend.functional import activation
from custom_backend.functional.activation import sigmoid_backward
from lightning_modules import bridge

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "custom_backend.md").read_text()


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


def test_a_layer_is_added_as_the_page_says(monkeypatch):
    """Each block where the page says that it belongs; then the layer is torch's."""
    mathematics, layer, case, row = re.findall(
        r"```python\n(.*?)```", (DOCS / "contributing.md").read_text(), re.DOTALL
    )
    for block, module in ((mathematics, activation), (layer, layers)):
        scope = dict(vars(module))
        exec(block, scope)
        for name in re.findall(r"^(?:def|class) (\w+)", block, re.MULTILINE):
            monkeypatch.setattr(module, name, scope[name], raising=False)
    monkeypatch.setattr(cb, "Softsign", layers.Softsign, raising=False)
    monkeypatch.setattr(bridge, "LAYERS", eval(row))
    ((ours, theirs),) = eval(case)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1).requires_grad_()
    expected = theirs(x)
    (by_x,) = torch.autograd.grad(expected.square().sum(), x)
    y = bridge._namespace("auto").Softsign()(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], by_x)
    assert isinstance(theirs, nn.Softsign)
    assert ours.forward({}, x.detach().numpy().T)[0].tolist() == y.T.tolist()
