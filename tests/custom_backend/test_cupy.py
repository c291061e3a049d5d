"""What can be known about the CuPy path on a machine without a GPU."""

import ast
import importlib
import shutil
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
import torch
from cases import CASES, randomised, state_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network import networks

import custom_backend as cb
from custom_backend.array import resolve_kernel
from custom_backend.functional.normalization import norm_act_pool_forward

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def test_every_name_exists_in_cupy():
    cupy = pytest.importorskip("cupy")
    used = set()
    for file in Path(cb.__file__).parent.rglob("*.py"):
        if file.parent.name == "kernels" and file not in fake_cupy.CUDA_FILES:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                if owner in ("xp", "cupy", "cupy.random") or owner.startswith("namespace("):
                    used.add((owner == "cupy.random", node.attr))
    assert len(used) > 20
    missing = [name for of_random, name in used if not hasattr(cupy.random if of_random else cupy, name)]
    assert missing == []


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_kernel_compiles_for_a_gpu(architecture, dtype):
    cupy = pytest.importorskip("cupy")
    from cupy._core import _carray, _kernel, core
    from cupy_backends.cuda.libs import nvrtc

    for module in fake_cupy.CUDA_MODULES:
        importlib.import_module(module)
    from custom_backend.kernels.elementwise import CUDA_KERNELS

    options = core.assemble_cupy_compiler_options((f"--gpu-architecture={architecture}", "--std=c++17"))
    assert len(CUDA_KERNELS) >= 8
    for kernel in CUDA_KERNELS.values():
        info = []
        for parameter in kernel.params:
            kind = np.dtype(parameter.dtype or dtype)
            is_array = parameter.raw or parameter in kernel.out_params or parameter.name == "grad"
            if parameter.name == "_ind":
                info.append(_kernel._ArgInfo(2, _carray.Indexer, None, 1, True, True))
            else:
                info.append(
                    _kernel._ArgInfo(1 if is_array else 3, cupy.ndarray, kind, int(is_array), True, True)
                )
        types = _kernel._TypeMap((("T", np.dtype(dtype).type),))
        code = _kernel._get_elementwise_kernel_code(
            tuple(info), types, kernel.params, kernel.operation, kernel.name, kernel.preamble
        )
        headers = "#include <cupy/complex.cuh>\n#include <cupy/carray.cuh>\n"
        program = nvrtc.createProgram(headers + code, f"{kernel.name}.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError:
            pytest.fail(f"{kernel.name}: {nvrtc.getProgramLog(program)}")
        assert f".entry {kernel.name}" in nvrtc.getPTX(program).decode(errors="replace")


@needs_compiler
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", CASES)
def test_every_layer_with_the_kernels_compiled_for_the_cpu(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")

    @settings(deadline=None, max_examples=10)
    @given(data=st.data())
    def compare(data):
        case, training = data.draw(CASES[kind]), data.draw(st.booleans())
        torch.manual_seed(data.draw(st.integers(0, 99)))
        reference = randomised(case.reference, torch.float64).train(training)
        state = {name: cupy.asarray(array) for name, array in state_of(reference).items()}
        x = torch.randn(case.shape, dtype=torch.float64).round(decimals=1).requires_grad_()
        expected = reference(x)
        grad = torch.randn_like(expected)
        expected.backward(grad)
        y, saved = case.layer.forward(state, cupy.asarray(x.detach().numpy().transpose(*order(x))), training)
        grad_x, gradients = case.layer.backward(saved, cupy.asarray(grad.numpy().transpose(*order(grad))))
        close = {"rtol": 1e-9, "atol": 1e-9}
        np.testing.assert_allclose(y.hidden, expected.detach().numpy().transpose(*order(y)), **close)
        np.testing.assert_allclose(grad_x.hidden, x.grad.numpy().transpose(*order(x)), **close)
        for name, parameter in reference.named_parameters():
            np.testing.assert_allclose(gradients[name].hidden, parameter.grad, **close)
        for name, tensor in reference.state_dict().items():
            np.testing.assert_allclose(state[name].hidden, tensor, **close)

    def order(tensor):
        return (*range(1, tensor.ndim), 0)

    with fake_cupy.installed(folder) as cupy:
        compare()


@needs_compiler
def test_the_network_trains_through_the_fake_cupy_as_through_numpy(tmp_path):
    network, reference = networks()
    start = {name: tensor.numpy().copy() for name, tensor in reference.state_dict().items()}
    rng = np.random.default_rng(0)
    batches = [
        (rng.normal(size=(2, 11, 11, 8)).astype(np.float32), rng.integers(5, size=8)) for _ in range(5)
    ]

    def train(asarray):
        state, adam, losses = {n: asarray(a.copy()) for n, a in start.items()}, cb.Adam(lr=1e-2), []
        for x, labels in batches:
            logits, saved = network.forward(state, asarray(x), training=True)
            loss, saved_loss = cb.focal_loss_forward(logits, asarray(labels))
            adam.step(state, network.backward(saved, cb.focal_loss_backward(saved_loss))[1])
            losses.append(float(loss))
        return losses

    with fake_cupy.installed(tmp_path) as cupy:
        losses = train(cupy.asarray)
        assert resolve_kernel(norm_act_pool_forward.__wrapped__, "cupy").__module__ in fake_cupy.CUDA_MODULES
        dropped, _ = cb.Dropout(0.5).forward({}, cupy.asarray(np.ones((9, 9))), True, rng)
        assert set(np.unique(dropped.hidden)) == {0, 2}
        with pytest.raises(TypeError):
            _ = cupy.asarray(np.ones(2)) + np.ones(2)
    assert losses == pytest.approx(train(np.asarray), rel=1e-5)


@pytest.mark.gpu
def test_the_network_trains_on_a_gpu_as_on_a_cpu():
    cupy = pytest.importorskip("cupy")
    if not cupy.is_available():
        pytest.skip("needs a GPU")
    network, _ = networks()
    start = network.init(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(2, 11, 11, 8)).astype(np.float32), rng.integers(5, size=8)

    def gradients(asarray):
        state = {name: asarray(array.copy()) for name, array in start.items()}
        logits, saved = network.forward(state, asarray(x), training=True)
        _, saved_loss = cb.cross_entropy_forward(logits, asarray(labels))
        return network.backward(saved, cb.cross_entropy_backward(saved_loss))[1]

    on_gpu = gradients(cupy.asarray)
    for name, gradient in gradients(np.asarray).items():
        np.testing.assert_allclose(cupy.asnumpy(on_gpu[name]), gradient, rtol=1e-3, atol=1e-5)
