"""`grade.py` as a student meets it: right solutions pass, common mistakes are named, nothing is suffered."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exercises import _grade as grade
from exercises._tasks import EXERCISES

ROOT = Path(__file__).parents[1]

# As a student might write them: windows in loops, nothing taken from the library.
SOLUTIONS = {
    "im2col": """
import numpy as np

def im2col(x, kernel, stride, padding):
    C, H, W, N = x.shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.zeros((C, H + 2 * ph, W + 2 * pw, N), x.dtype)
    padded[:, ph:ph + H, pw:pw + W] = x
    out_h, out_w = (H + 2 * ph - kh) // sh + 1, (W + 2 * pw - kw) // sw + 1
    columns = np.zeros((C * kh * kw, out_h * out_w * N), x.dtype)
    for r in range(out_h):
        for s in range(out_w):
            window = padded[:, r * sh:r * sh + kh, s * sw:s * sw + kw]
            at = (r * out_w + s) * N
            columns[:, at:at + N] = window.reshape(-1, N)
    return columns

def col2im(columns, shape, kernel, stride, padding):
    C, H, W, N = shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.zeros((C, H + 2 * ph, W + 2 * pw, N), columns.dtype)
    out_w = (W + 2 * pw - kw) // sw + 1
    for at in range(columns.shape[1] // N):
        r, s = divmod(at, out_w)
        window = columns[:, at * N:at * N + N].reshape(C, kh, kw, N)
        padded[:, r * sh:r * sh + kh, s * sw:s * sw + kw] += window
    return padded[:, ph:ph + H, pw:pw + W]
""",
    "conv": """
import numpy as np

def conv2d_backward(x, weight, grad, stride, padding):
    O, C, kh, kw = weight.shape
    C, H, W, N = x.shape
    (sh, sw), (ph, pw) = stride, padding
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
    for r in range(grad.shape[1]):
        for s in range(grad.shape[2]):
            rows, cols = slice(r * sh, r * sh + kh), slice(s * sw, s * sw + kw)
            for n in range(N):
                for o in range(O):
                    grad_weight[o] += grad[o, r, s, n] * padded[:, rows, cols, n]
                    grad_padded[:, rows, cols, n] += grad[o, r, s, n] * weight[o]
    grad_bias = grad.sum(axis=(1, 2, 3))
    return grad_padded[:, ph:ph + H, pw:pw + W], grad_weight, grad_bias
""",
    "batch_norm": """
import numpy as np

def batch_norm_forward(x, weight, bias, running_mean, running_var, momentum, eps, training):
    if training:
        mean = x.mean(axis=(1, 2, 3))
        var = ((x - mean[:, None, None, None]) ** 2).mean(axis=(1, 2, 3))
        n = x.size / len(x)
        running_mean = running_mean * (1 - momentum) + mean * momentum
        running_var = running_var * (1 - momentum) + var * n / (n - 1) * momentum
    else:
        mean, var = running_mean, running_var
    y = np.empty_like(x)
    for c in range(len(x)):
        y[c] = weight[c] * (x[c] - mean[c]) / np.sqrt(var[c] + eps) + bias[c]
    return y, running_mean, running_var

def batch_norm_backward(x, weight, grad, eps):
    grad_x, grad_weight, grad_bias = np.empty_like(x), np.empty_like(weight), np.empty_like(weight)
    for c in range(len(x)):
        std = np.sqrt(x[c].var() + eps)
        hat = (x[c] - x[c].mean()) / std
        g = grad[c]
        grad_weight[c] = np.sum(g * hat)
        grad_bias[c] = np.sum(g)
        grad_x[c] = weight[c] / std * (g - g.mean() - hat * np.mean(g * hat))
    return grad_x, grad_weight, grad_bias
""",
    "max_pool": """
import numpy as np

def max_pool2d_forward(x, kernel, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=-np.inf)
    out_h, out_w = (padded.shape[1] - kh) // sh + 1, (padded.shape[2] - kw) // sw + 1
    y = np.empty((x.shape[0], out_h, out_w, x.shape[3]), x.dtype)
    for r in range(out_h):
        for s in range(out_w):
            y[:, r, s] = padded[:, r * sh:r * sh + kh, s * sw:s * sw + kw].max(axis=(1, 2))
    return y

def max_pool2d_backward(x, grad, kernel, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    C, H, W, N = x.shape
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=-np.inf)
    out = np.zeros_like(padded)
    for c in range(C):
        for r in range(grad.shape[1]):
            for s in range(grad.shape[2]):
                for n in range(N):
                    window = padded[c, r * sh:r * sh + kh, s * sw:s * sw + kw, n]
                    i, j = divmod(int(window.argmax()), kw)
                    out[c, r * sh + i, s * sw + j, n] += grad[c, r, s, n]
    return out[:, ph:ph + H, pw:pw + W]
""",
    "cross_entropy": """
import numpy as np

def softmax(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)

def targets(logits, labels, smoothing):
    K, N = logits.shape
    q = np.full((K, N), smoothing / K, logits.dtype)
    q[labels, np.arange(N)] += 1 - smoothing
    return q

def cross_entropy_forward(logits, labels, label_smoothing):
    z = logits - logits.max(axis=0)
    log_p = z - np.log(np.exp(z).sum(axis=0))
    return -np.sum(targets(logits, labels, label_smoothing) * log_p) / logits.shape[1]

def cross_entropy_backward(logits, labels, label_smoothing):
    return (softmax(logits) - targets(logits, labels, label_smoothing)) / logits.shape[1]
""",
    "focal_loss": """
import numpy as np

def softmax(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)

def log_pt(logits, labels):
    z = logits - logits.max(axis=0)
    return (z - np.log(np.exp(z).sum(axis=0)))[labels, np.arange(len(labels))]

def focal_loss_forward(logits, labels, alpha, gamma):
    ell = log_pt(logits, labels)
    return np.mean(-alpha * (1 - np.exp(ell)) ** gamma * ell)

def focal_loss_backward(logits, labels, alpha, gamma):
    ell = log_pt(logits, labels)
    pt = np.exp(ell)
    sure = pt == 1
    rest = np.where(sure, 1, 1 - pt)
    slope = -alpha * (rest ** gamma - gamma * rest ** (gamma - 1) * pt * ell)
    slope[sure] = 0
    h = np.zeros_like(logits)
    h[labels, np.arange(len(labels))] = 1
    return slope * (h - softmax(logits)) / len(labels)
""",
    "selu": """
import numpy as np

a, l = 1.6732632423543772, 1.0507009873554805

def selu_forward(x):
    y = l * x
    low = x <= 0
    y[low] = l * a * (np.exp(x[low]) - 1)
    return y

def selu_backward(x, grad):
    slope = np.full_like(x, l)
    slope[x <= 0] = l * a * np.exp(x[x <= 0])
    return slope * grad
""",
    "dropout": """
import numpy as np

def dropout_forward(x, u, p, training):
    if not training:
        return x
    if p == 1:
        return np.zeros_like(x)
    return np.where(u < p, 0, x / (1 - p)).astype(x.dtype)

def dropout_backward(grad, u, p):
    if p == 1:
        return np.zeros_like(grad)
    return np.where(u < p, 0, grad / (1 - p)).astype(grad.dtype)
""",
    "adam": """
import numpy as np

def adam_step(parameter, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay):
    b1, b2 = betas
    grad = grad + weight_decay * parameter
    m = b1 * exp_avg + (1 - b1) * grad
    v = b2 * exp_avg_sq + (1 - b2) * grad * grad
    m_hat = m / (1 - b1 ** step)
    v_hat = v / (1 - b2 ** step)
    return parameter - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
""",
}


def graded(folder: Path, name: str, source: str) -> list[grade.Finding]:
    """In this process: for files that end by themselves."""
    path = folder / f"{name}.py"
    path.write_text(source)
    return grade.check(EXERCISES[name], grade.load(path))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_solution_passes(name, tmp_path):
    findings = graded(tmp_path, name, SOLUTIONS[name])
    assert {verdict for verdict, _ in findings} == {"right"}, findings
    assert any("numerical" in says for _, says in findings) == (name != "adam")


BUGS = [
    ("conv", "for o in range(O)", "for o in range(1, O)", "∂L/∂W is wrong only for output channel 0"),
    ("max_pool", "(padded.shape[1] - kh) // sh + 1", "(padded.shape[1] - kh + 1) // sh", "has the shape"),
    ("max_pool", "np.empty((x.shape[0], out_h", "np.empty((x.shape[0], 1 + out_h", "y has the shape"),
    ("batch_norm", "hat = (x[c] - x[c].mean()) / std", "hat = x[c] / std", "∂L/∂γ is missing the mean"),
    ("batch_norm", "running_mean * (1 - momentum) + ", "", "running_mean forgets its old value"),
    ("cross_entropy", "q[labels, np.arange(N)] +=", "q[labels] +=", "sets the target of whole classes"),
    ("cross_entropy", "q[labels, np.arange(N)] +=", "q[labels, np.arange(N)] =", "ε / K of the label"),
    ("cross_entropy", "(softmax(logits) - t", "(logits - t", "takes the logits for probabilities"),
    ("focal_loss", "gamma * rest ** (", "rest ** (", "missing the factor γ in the second term"),
    ("selu", "1.6732632423543772", "1.67", "y is wrong where x ≤ 0 alone"),
    ("dropout", "np.where(u < p, 0, x", "np.where(np.random.rand(*x.shape) < p, 0, x", "the second time"),
    ("dropout", "np.where(u < p, 0, x / (1 - p))", "((u >= p) / (1 - p))", "this is the mask alone"),
    ("adam", "(1 - b1 ** step)", "(1 - b1)", "parameter corrects the bias of m with 1 − β₁"),
    ("adam", "lr * m_hat", "m_hat", "parameter is missing the factor lr"),
    ("adam", "b2 * exp_avg_sq", "b2 * exp_avg", "exp_avg_sq is made of exp_avg"),
    (
        "conv",
        "grad.sum(axis=(1, 2, 3))",
        "grad.mean(axis=(1, 2, 3))",
        "64 times too small .all of a channel of `grad`",
    ),
    (
        "conv",
        "grad.sum(axis=(1, 2, 3))",
        "grad.sum(axis=(0, 1, 2))",
        r"expected is \(7,\), \(output channel\)",
    ),
    ("conv", "grad.sum(axis=(1, 2, 3))", "grad.sum((1, 2, 3), keepdims=True)", "its numbers are right"),
    ("cross_entropy", "z - z.max(axis=0)", "z - z.max()", "∂L/∂z is right on ordinary .* logits of 1000"),
    ("batch_norm", "x[c].var()", "x[c].var(ddof=1)", "∂L/∂x uses the unbiased variance"),
    ("conv", "ph:ph + H, pw:pw + W]", "ph:-ph, pw:-pw]", "a slice such as p:-p is empty for p = 0"),
    (
        "im2col",
        "window.reshape(-1, N)",
        "window.transpose(1, 2, 0, 3).reshape(-1, N)",
        "columns has its rows in the order",
    ),
    ("im2col", "return columns\n", "return columns.T\n", "columns has the shape .* transposed"),
    ("im2col", "padded[:, ph:ph + H, pw:pw + W] = x", "padded[:, :H, :W] = x", "missing at the beginning"),
    (
        "im2col",
        "stride, padding\n    padded = np.zeros((C, H + 2 * ph, W + 2 * pw, N), x",
        "stride, (0, 0)\n    padded = np.zeros((C, H + 2 * ph, W + 2 * pw, N), x",
        "columns ignores the padding",
    ),
    ("im2col", "+= window", "= window", "∂L/∂x lets overlapping windows overwrite"),
    ("im2col", "padded[:, ph:ph + H, pw:pw + W]\n", "padded[:, :H, :W]\n", "∂L/∂x is shifted"),
    ("im2col", "return padded[:, ph:ph + H, pw:pw + W]\n", "return padded\n", "∂L/∂x still has the padding"),
    ("conv", "grad_weight[o] += ", "grad_weight[o] = ", "∂L/∂W keeps only the last term of the sum"),
    ("conv", "cols, n] += ", "cols, n] = ", "∂L/∂x keeps only the last term of the sum"),
    (
        "conv",
        "for n in range(N):",
        "for n in range(1):",
        "∂L/∂W has the right size but is missing the sum over the batch",
    ),
    (
        "conv",
        "grad.sum(axis=(1, 2, 3))",
        "grad.sum(axis=(1, 2))",
        "∂L/∂b has the shape .*the sum over the batch is missing",
    ),
    (
        "conv",
        "grad.sum(axis=(1, 2, 3))",
        "grad[..., 0].sum(axis=(1, 2))",
        "∂L/∂b .* missing the sum over the batch",
    ),
    (
        "conv",
        "grad_weight, grad_bias\n",
        "grad_weight / N, grad_bias\n",
        r"∂L/∂W is 4 times too small \(the batch size: 4\)",
    ),
    ("conv", "* weight[o]", "* weight[o, :, ::-1, ::-1]", "∂L/∂x uses the kernel mirrored"),
    ("conv", "range(grad.shape[1])", "range(1, grad.shape[1] - 1)", "∂L/∂W"),
    (
        "conv",
        "return grad_padded",
        "grad_padded[:, [ph, ph + H - 1]] = grad_padded[:, :, [pw, pw + W - 1]] = 0\n    return grad_padded",
        "∂L/∂x is right inside, but the border's gradient is lost",
    ),
    (
        "conv",
        "grad_weight, grad_bias\n",
        "grad_weight[..., ::-1, ::-1], grad_bias\n",
        "∂L/∂W is mirrored along kernel row and kernel column",
    ),
    ("conv", "grad_weight, grad_bias\n", "grad_bias, grad_weight\n", "wrong order|has the shape"),
    ("batch_norm", "var * n / (n - 1) * momentum", "var * momentum", "running_var is biased"),
    (
        "batch_norm",
        "running_mean * (1 - momentum) + mean * momentum",
        "running_mean * momentum + mean * (1 - momentum)",
        "running_mean has momentum the wrong way round",
    ),
    ("batch_norm", "np.sqrt(var[c] + eps)", "(np.sqrt(var[c]) + eps)", "y adds ε outside the root"),
    ("batch_norm", "    if training:", "    if True:", "running_var moves in evaluation too"),
    ("batch_norm", " - hat * np.mean(g * hat)", "", "∂L/∂x is missing the term − x̂"),
    ("batch_norm", "(g - g.mean() - hat * np.mean(g * hat))", "g", "∂L/∂x treats μ and σ as constants"),
    ("batch_norm", "np.sum(g * hat)", "np.sum(g * x[c])", "∂L/∂γ is Σ g x"),
    (
        "batch_norm",
        "grad_weight, grad_bias\n",
        "grad_bias, grad_weight\n",
        "∂L/∂γ is ∂L/∂β: the results are in the wrong order",
    ),
    ("batch_norm", "return grad_x", "return -grad_x", "∂L/∂x has the wrong sign"),
    (
        "max_pool",
        "constant_values=-np.inf)\n    out_h",
        "constant_values=0)\n    out_h",
        "y takes the padding for 0",
    ),
    ("max_pool", ".max(axis=(1, 2))", ".mean(axis=(1, 2))", "y is the mean of each window"),
    ("max_pool", "j, n] += grad", "j, n] = grad", "∂L/∂x lets overlapping windows overwrite"),
    (
        "max_pool",
        "int(window.argmax())",
        "int(window.size - 1 - window[::-1, ::-1].argmax())",
        "∂L/∂x .*values in a window are equal",
    ),
    (
        "max_pool",
        "sh, sw), (ph, pw) = kernel, stride, padding\n    padded",
        "sh, sw), (ph, pw) = kernel, kernel, padding\n    padded",
        "y moves by the size of the window",
    ),
    (
        "cross_entropy",
        "z = logits - logits.max(axis=0)",
        "z = logits",
        "L is right on ordinary inputs, but not for logits of 1000",
    ),
    ("cross_entropy", "log_p) / logits.shape[1]", "log_p)", "L is the sum over the batch|L is 4 times"),
    ("cross_entropy", "smoothing)) / logits.shape[1]", "smoothing))", "∂L/∂z .*(1 / N|4 times)"),
    (
        "cross_entropy",
        "(softmax(logits) - targets(logits, labels, label_smoothing))",
        "(targets(logits, labels, label_smoothing) - softmax(logits))",
        "∂L/∂z has the wrong sign",
    ),
    ("cross_entropy", "smoothing / K,", "0,", "L is missing the ε / K"),
    (
        "cross_entropy",
        "e.sum(axis=0)",
        "e.sum(axis=1, keepdims=True)",
        "∂L/∂z takes the softmax over the batch",
    ),
    ("focal_loss", "(1 - np.exp(ell)) ** gamma", "np.exp(ell) ** gamma", "L weights by p_t"),
    (
        "focal_loss",
        "(rest ** gamma - gamma * rest ** (gamma - 1) * pt * ell)",
        "rest ** gamma",
        "∂L/∂z treats .* as a constant",
    ),
    (
        "focal_loss",
        "pt == 1",
        "pt == 2",
        "∂L/∂z is right on ordinary inputs, but not for logits of 1000",
    ),
    ("selu", "(np.exp(x[low]) - 1)", "np.exp(x[low])", "y is missing the − 1"),
    ("selu", "y = l * x", "y = x.copy()", "y is missing the factor λ where x > 0"),
    (
        "selu",
        "l * a * np.exp(x[x <= 0])",
        "l * a * (np.exp(x[x <= 0]) - 1)",
        "∂L/∂x has y itself where x ≤ 0",
    ),
    (
        "selu",
        "l * a * np.exp(x[x <= 0])",
        "selu_forward(x[x <= 0]) + l * a",
        "∂L/∂x is right on ordinary inputs, but not for x far below −12, where y . λ α loses",
    ),
    ("selu", "slope * grad", "slope", "∂L/∂x is missing the factor g"),
    (
        "selu",
        "y = l * x\n    low",
        "y = x\n    y *= l\n    low",
        "selu_forward changes its argument `x` in place",
    ),
    ("dropout", "0, x / (1 - p)", "0, x", "y is missing the factor 1 / .1 − p."),
    ("dropout", "np.where(u < p, 0, x", "np.where(u >= p, 0, x", "y keeps what should be dropped"),
    ("dropout", "        return x\n", "        return x * (1 - p)\n", "y is scaled in evaluation"),
    (
        "dropout",
        "    if p == 1:\n        return np.zeros_like(x)\n    return np.where(u < p, 0, x / (1 - p))",
        "    return (x * (u >= p) / (1 - p))",
        "y is right on ordinary inputs, but not for p = 1",
    ),
    ("dropout", "np.where(u < p, 0, grad / (1 - p))", "(grad / (1 - p))", "∂L/∂x is missing the mask"),
    ("adam", "m / (1 - b1 ** step)", "m", "parameter is missing the bias correction of m"),
    ("adam", " ** step", "", "parameter corrects the bias with 1 − β in every step"),
    ("adam", "(np.sqrt(v_hat) + eps)", "np.sqrt(v_hat + eps)", "parameter has ε inside the root"),
    ("adam", "parameter - lr", "parameter + lr", "parameter walks uphill"),
    ("adam", "grad * grad", "grad", "exp_avg_sq averages g where"),
    ("adam", "m, v\n", "m_hat, v_hat\n", "exp_avg is returned with the bias correction"),
    (
        "adam",
        "grad = grad + weight_decay * parameter",
        "parameter = parameter * (1 - lr * weight_decay)",
        "AdamW",
    ),
    (
        "adam",
        "grad = grad + weight_decay * parameter",
        "grad += weight_decay * parameter",
        "changes its argument `grad` in place",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "said"), BUGS)
def test_a_mistake_is_named(name, old, new, said, tmp_path):
    assert old in SOLUTIONS[name]
    findings = graded(tmp_path, name, SOLUTIONS[name].replace(old, new))
    wrong = [says for verdict, says in findings if verdict == "wrong"]
    print(name, repr(new), *findings, sep="\n    ")
    assert any(re.search(said, says) for says in wrong), findings


def test_every_known_mistake_is_one_and_differs_from_the_others():
    for exercise in EXERCISES.values():
        for task in exercise.tasks:
            right = [grade.parts(task, task.library(*case.values())) for case in task.cases]
            for index, name in enumerate(task.results):
                said: list[tuple[str, list]] = []
                for mistake in grade.mistakes(task, name):
                    with np.errstate(all="ignore"):
                        wrong = [grade.mistaken(task, mistake, case)[index] for case in task.cases]
                    if mistake[0]:
                        assert not all(map(grade.same, wrong, (each[index] for each in right))), mistake
                    twins = [words for words, other in said if all(map(grade.same, wrong, other))]
                    assert set(twins) <= {mistake[1]} or not mistake[0], (mistake, twins)
                    said.append((mistake[1], wrong))


def test_the_exercises_as_handed_out_are_open_and_say_where_the_solution_is(tmp_path):
    for name, exercise in EXERCISES.items():
        source = (ROOT / "exercises" / f"{name}.py").read_text()
        findings = graded(tmp_path, name, source)
        assert {verdict for verdict, _ in findings} == {"open"}, findings
        file = ROOT / exercise.where.rpartition(" in ")[2]
        for task in exercise.tasks:
            assert f"`{task.solution.__name__}`" in source
            assert f"python grade.py exercises/{name}.py" in source
            assert str(file.relative_to(ROOT)) in " ".join(source.split())
            library = task.solution.__name__
            assert f"def {library}(" in file.read_text()


SELU = SOLUTIONS["selu"]
HOSTILE = {
    "an endless loop": (
        "import os\nwhile True: pass\n",
        r"not done after 2 seconds: .* \(line 2 in <module>\)",
    ),
    "an endless loop in C": ("import time\ntime.sleep(1000)\n", "not done after"),
    "a shell": ("import subprocess\nsubprocess.run(['sleep', '1000'])\n", "not done after"),
    "endless printing": ("while True: print('x' * 1000)\n", "prints more than 100,000 characters"),
    "much memory": ("import numpy as np\nnp.ones(10**12)\n", "Unable to allocate"),
    "ever more memory": (
        "import numpy as np\na = []\nwhile True: a.append(np.empty(10**6))\n",
        "Unable to allocate",
    ),
    "the end": ("import os\nos._exit(0)\n", "ends the program"),
    "a crash of Python": ("import ctypes\nctypes.string_at(0)\n", r"crashes Python \(SIGSEGV\)"),
}
REPORTED = {
    "memory": (
        "import numpy as np\ndef selu_forward(x):\n    return np.ones(10**13)\n",
        "asks for more memory",
    ),
    "exit": ("def selu_forward(x):\n    exit()\n", r"selu_forward ends the program \(exit\)"),
    "exit when read": ("raise SystemExit(0)\n", "the file ends the program"),
    "a syntax error": ("def selu_forward(x)\n    return x\n", r"not Python: expected ':' \(line 1: def"),
    "an error when read": ("import nothing_of_this_name\n", "fails when it is .*; an exercise needs NumPy"),
    "null bytes": ("\0", "null bytes"),
    "a crash": (
        "def selu_forward(x):\n    return x / y\n",
        r"NameError: name 'y' is not defined \(line 2: return x / y\)",
    ),
    "recursion": ("def selu_forward(x):\n    return selu_forward(x)\n", "RecursionError"),
    "an interrupt": ("def selu_forward(x):\n    raise KeyboardInterrupt\n", "raises KeyboardInterrupt"),
    "a missing function": (
        "def selu_forwards(x):\n    return x\n",
        r"selu_forward is missing.*selu_forwards\?",
    ),
    "a value": ("selu_forward = 3\n", "selu_forward is missing"),
    "other arguments": (
        "def selu_forward(x, slope):\n    return x\n",
        r"must take \(x\); it takes \(x, slope\)",
    ),
    "no return": ("def selu_forward(x):\n    y = x\n", "it returns None"),
    "a list": (
        "def selu_forward(x):\n    return x.tolist()\n",
        "must return an array .y.; it returns a list",
    ),
    "integers": ("def selu_forward(x):\n    return x.astype(int)\n", "y is of dtype int64"),
    "single precision": (
        SELU.replace("return y", "return y.astype('f4')"),
        "dtype float32: for arguments of float64",
    ),
    "always double": (
        SELU.replace("return y", "return y.astype(float)"),
        "dtype float64: for arguments of float32",
    ),
    "another shape": (
        "def selu_forward(x):\n    return x[:1]\n",
        r"has the shape \(1, 4\): expected is \(3, 4\)",
    ),
    "a change in place": (
        "def selu_forward(x):\n    x[0] = 0\n    return x\n",
        "changes its argument `x` in place",
    ),
    "NaN": ("def selu_forward(x):\n    return x * float('nan')\n", "y is NaN in 12 of 12 entries"),
    "strict arithmetic": ("import numpy as np\nnp.seterr(all='raise')\n" + SELU, "right"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_will_not_end_well_is_reported_and_not_suffered(kind, tmp_path):
    source, said = HOSTILE[kind]
    path = tmp_path / "selu.py"
    path.write_text(source)
    findings, printed = grade.grade(path, 2 if "not done" in said else 8)
    (finding,) = findings
    assert finding.verdict == "wrong"
    assert re.search(said, finding.says), (finding, printed)
    assert len(printed) < 2 * grade.PRINTED


@pytest.mark.parametrize("kind", REPORTED)
def test_what_is_wrong_with_a_file_is_one_clear_line(kind, tmp_path):
    source, said = REPORTED[kind]
    try:
        with np.errstate():  # what the file sets is its own
            findings = graded(tmp_path, "selu", source)
    except grade.Wrong as error:
        findings = [grade.Finding("wrong", str(error))]
    assert re.search(said, " ".join(findings[0])), findings
    assert "\n" not in findings[0].says


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv", "x", r"must return 3 values \(∂L/∂x, ∂L/∂W, ∂L/∂b\); it returns a ndarray"),
        ("conv", "(x, weight)", "it returns 2 values"),
        ("cross_entropy", "logits", r"must return a number \(L\); it returns a ndarray of shape \(3, 4\)"),
        ("cross_entropy", "'1.0'", "it returns a str"),
        ("cross_entropy", "[1.0]", "it returns a list"),
    ],
)
def test_what_is_returned_is_looked_at(name, value, said, tmp_path):
    task = EXERCISES[name].tasks[0]
    arguments = ", ".join(task.cases[0])
    source = f"def {task.solution.__name__}({arguments}):\n    return {value}\n"
    assert re.search(said, graded(tmp_path, name, source)[0].says)


def test_numpy_is_all_that_it_needs(tmp_path):
    absent = ["torch", "numba", "threadpoolctl", "scipy", "hydra", "omegaconf", "lightning", "safetensors"]
    program = (
        "import sys; from pathlib import Path\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        "from exercises import _grade as grade\n"
        "grade.KERNELS.clear()\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    print(*grade.check(grade.EXERCISES[path.stem], grade.load(path)))\n"
    )
    for name, source in SOLUTIONS.items():
        (tmp_path / f"{name}.py").write_text(source)
    files = [str(tmp_path / f"{name}.py") for name in SOLUTIONS]
    done = subprocess.run([sys.executable, "-c", program, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = sum(len(task.results) for exercise in EXERCISES.values() for task in exercise.tasks)
    assert done.stdout.count("verdict='right'") == done.stdout.count("verdict=") == results


def test_a_single_file_is_reported(tmp_path, run_entry_point):
    for name in ("conv", "im2col"):
        (tmp_path / f"{name}.py").write_text(SOLUTIONS[name])
    done = run_entry_point("grade.py", tmp_path / "conv.py")
    assert done.code == 0, done
    assert done.out.count("\n  right") == 3
    assert (
        "All right. Now compare yours with conv2d_backward in custom_backend/functional/convolution.py."
        in done.out
    )
    (tmp_path / "conv.py").write_text(
        "from im2col import im2col\nprint('hello')\n" + SOLUTIONS["conv"].replace("+=", "=")
    )
    done = run_entry_point("grade.py", tmp_path / "conv.py")
    assert done.code == 1
    assert "1 of 3 right" in done.out
    assert "It printed:\n  hello\n" in done.out


def test_a_folder_is_a_table(tmp_path, run_entry_point):
    for student, change in (("anna", ""), ("ben", "g")):
        (tmp_path / student).mkdir()
        (tmp_path / student / "adam.py").write_text(SOLUTIONS["adam"].replace("grad * grad", "grad" + change))
        (tmp_path / student / "notes.py").write_text("")
    done = run_entry_point("grade.py", tmp_path)
    assert done.code == 1
    _, anna, ben, count = done.out.splitlines()
    assert re.search(r"anna/adam.py\s+1/3\s+parameter averages g", anna)
    assert re.search(r"ben/adam.py\s+0/1\s+adam_step raises NameError: name 'gradg'", ben)
    assert count == "0 of 2 right"


def test_without_arguments_the_exercises_are_listed(run_entry_point):
    done = run_entry_point("grade.py")
    assert done.code == 0
    assert all(f"exercises/{name}.py" in done.out for name in EXERCISES)
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("exercises/cnov.py", r"does not exist. Did you mean exercises/conv.py\?"),
        ("conv", r"does not exist. Did you mean exercises/conv.py\?"),
        ("train.py", "is no exercise; a file is known by its name. Exercises: im2col, conv"),
        ("docs", "holds no exercise"),
        ("--grade", "does not exist"),
    ],
)
def test_an_unknown_file_is_an_error_that_names_the_nearest(word, said, run_entry_point, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = run_entry_point("grade.py", word)
    assert done.code == 1
    assert re.search(said, done.err), done


# What docs/exercises.md shows, block by block: edits of a right solution.
SHOWN = [
    (
        "conv",
        ("grad_weight[o] += ", "if n == 0: grad_weight[o] += "),
        (
            "return grad_padded",
            "grad_padded[:, [ph, ph + H - 1]] = 0\n    grad_padded[:, :, [pw, pw + W - 1]] = 0\n"
            "    return grad_padded",
        ),
    ),
    ("conv",),
    ("batch_norm", ("var * n / (n - 1) * momentum", "var * momentum"), (" - hat * np.mean(g * hat)", "")),
    ("batch_norm",),
    (
        "cross_entropy",
        ("z = logits - logits.max(axis=0)", "z = logits"),
        ("label_smoothing)) / logits.shape[1]", "label_smoothing))"),
    ),
    ("cross_entropy",),
]


def test_the_page_shows_what_a_student_sees(tmp_path, run_entry_point, monkeypatch):
    page = (ROOT / "docs" / "exercises.md").read_text()
    blocks = [
        block for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL) if "exercises/" in block
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exercises").mkdir()
    for (name, *edits), block in zip(SHOWN, blocks, strict=True):
        source = SOLUTIONS[name]
        for old, new in edits:
            assert old in source
            source = source.replace(old, new)
        file = Path("exercises") / f"{name}.py"
        file.write_text(source)
        assert f"$ python grade.py {file}\n{run_entry_point('grade.py', file).out}" == block
