"""PyTorch's own sample inputs: every layer and loss gives torch's values and gradients, or refuses.

The samples come with torch, for its own tests: settings and shapes that nobody here thought of.
"""

import collections
import importlib

import kernel_sets
import pytest
import torch
from torch.func import functional_call

from lightning_modules import bridge

pytest.importorskip("expecttest")  # which torch's samples import
ENGINE = bridge.namespace("auto")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
pytestmark = [
    pytest.mark.parametrize("dtype", TOLERANCE, ids=str),
    pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS),
    pytest.mark.filterwarnings("ignore"),  # torch's about its own samples
]

# A function of torch and the module that computes it, as a function of the same arguments.


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    size = tuple(weight.shape[2:])
    settings = (weight.shape[1] * groups, weight.shape[0], size, stride, padding, dilation, groups)
    return called(ENGINE.Conv2d(*settings, bias=bias is not None), x, weight=weight, bias=bias)


def linear(x, weight, bias=None):
    return called(
        ENGINE.Linear(weight.shape[-1], weight.shape[0], bias is not None), x, weight=weight, bias=bias
    )


def batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    has = {"affine": weight is not None, "bias": bias is not None, "track_running_stats": mean is not None}
    module = ENGINE.BatchNorm2d(x.shape[1] if x.ndim > 1 else 1, eps, momentum, **has).train(training)
    return called(module, x, weight=weight, bias=bias, running_mean=mean, running_var=variance)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    module = ENGINE.GroupNorm(groups, x.shape[1], eps, affine=weight is not None, bias=bias is not None)
    return called(module, x, weight=weight, bias=bias)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    module = ENGINE.LayerNorm(shape, eps, elementwise_affine=weight is not None, bias=bias is not None)
    return called(module, x, weight=weight, bias=bias)


def softmax(kind):
    def call(x, dim, dtype=None, **_):
        if dtype is not None:
            raise ValueError("expected no dtype")
        return getattr(ENGINE, kind)(dim)(x)

    return call


def module(name):
    return lambda x, *args, **kwargs: getattr(ENGINE, name)(*args, **kwargs)(x)


def loss(name):
    return lambda x, target, *args, **kwargs: getattr(ENGINE, name)(*args, **kwargs)(x, target)


def mse_loss(x, target, reduction="mean", weight=None):
    if weight is not None:
        raise ValueError("expected no weight, which no module has")
    return ENGINE.MSELoss(reduction=reduction)(x, target)


def called(built, x, **entries):
    return functional_call(built, {name: entry for name, entry in entries.items() if entry is not None}, (x,))


FUNCTIONS = {
    "nn.functional.conv2d": conv2d,
    "nn.functional.linear": linear,
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.group_norm": group_norm,
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.max_pool2d": module("MaxPool2d"),
    "nn.functional.avg_pool2d": module("AvgPool2d"),
    "nn.functional.adaptive_avg_pool2d": module("AdaptiveAvgPool2d"),
    "nn.functional.relu": module("ReLU"),
    "nn.functional.leaky_relu": module("LeakyReLU"),
    "nn.functional.selu": module("SELU"),
    "nn.functional.silu": module("SiLU"),
    "nn.functional.gelu": module("GELU"),
    "sigmoid": module("Sigmoid"),
    "tanh": module("Tanh"),
    "softmax": softmax("Softmax"),
    "log_softmax": softmax("LogSoftmax"),
    "nn.functional.cross_entropy": loss("CrossEntropyLoss"),
    "nn.functional.mse_loss": mse_loss,
}
MODULES = [
    *(name for name in bridge.LAYERS if name != "Dropout"),
    "CrossEntropyLoss",
    "MSELoss",
]


def tensors_of(arguments):
    return [each for each in arguments if isinstance(each, torch.Tensor) and each.requires_grad]


def results(call, inputs):
    """The value and the gradients by every input, for a gradient from above that depends on the position."""
    y = call()
    y = y[0] if isinstance(y, tuple) else y  # and indices
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True)]


def compare(ours, theirs, inputs, dtype, count):
    """Add to `count` whether ours equals theirs or is refused; anything else is an error."""
    count["tried"] += 1
    try:
        got = results(ours, inputs)
    except ValueError as refusal:  # most of max-pooling's 1,440 samples: torch need not compute them
        count["refused" if "expected" in str(refusal) else str(refusal)] += 1
        return
    expected = results(theirs, inputs)
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], equal_nan=True)
    count["equal"] += 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_sample_of_a_function_is_equal_or_refused(name, kernels, dtype):
    methods = importlib.import_module("torch.testing._internal.common_methods_invocations")
    count = collections.Counter()
    (info, *_) = [info for info in methods.op_db if info.name == name and not info.variant_test_name]
    torch.manual_seed(0)
    with kernel_sets.using(kernels):
        for sample in info.sample_inputs("cpu", dtype, requires_grad=True):
            inputs = tensors_of([sample.input, *sample.args, *sample.kwargs.values()])
            if not inputs:
                continue
            compare(
                lambda sample=sample: FUNCTIONS[name](sample.input, *sample.args, **sample.kwargs),
                lambda sample=sample: info.op(sample.input, *sample.args, **sample.kwargs),
                inputs, dtype, count,
            )  # fmt: skip
    print(name, kernels, dtype, dict(count))
    assert count["equal"] > 0
    assert count["equal"] + count["refused"] == count["tried"], count


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [True, False])
def test_every_sample_of_a_module_is_equal_or_refused(name, kernels, dtype, training):
    modules = importlib.import_module("torch.testing._internal.common_modules")
    kind = getattr(torch.nn, name)
    (info,) = [info for info in modules.module_db if info.module_cls is kind]
    count = collections.Counter()
    torch.manual_seed(0)
    with kernel_sets.using(kernels):
        settings = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": training}
        for sample in info.module_inputs_func(info, **settings):
            args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
            theirs = kind(*args, **kwargs).to(dtype).train(training)
            inputs = tensors_of([*sample.forward_input.args, *theirs.parameters()])

            def call(build, moved, theirs=theirs, sample=sample):
                buffers = {entry: buffer.clone() for entry, buffer in theirs.named_buffers()}
                entries = dict(theirs.named_parameters()) | buffers
                y = functional_call(build(), entries, sample.forward_input.args, sample.forward_input.kwargs)
                moved.append(buffers)
                return y

            def build(args=args, kwargs=kwargs):
                return getattr(ENGINE, name)(*args, **kwargs).to(dtype).train(training)

            moved: list[dict[str, torch.Tensor]] = []
            compare(
                lambda moved=moved, build=build: call(build, moved),
                lambda moved=moved, theirs=theirs: call(lambda: theirs, moved),
                inputs,
                dtype,
                count,
            )
            if len(moved) == 2:  # running statistics
                torch.testing.assert_close(*moved, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    print(name, kernels, dtype, training, dict(count))
    assert count["equal"] > 0
    assert count["equal"] + count["refused"] == count["tried"], count
