"""A neural network library from first principles, on any array module: NumPy, CuPy, …

Layers hold no arrays: parameters are a dict that goes in, gradients a dict that comes out. The batch is the
last axis. MNIST, from its four gzipped files in `MNIST/raw`:

    import gzip, numpy as np, custom_backend as cb

    def read(name, header):
        with gzip.open(f"MNIST/raw/{name}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    def images(name):
        return read(f"{name}-images-idx3", 16).reshape(-1, 28, 28)

    network = cb.Sequential(
        cb.Conv2d(1, 16, 3, padding=1, bias=False), cb.BatchNorm2d(16), cb.LeakyReLU(), cb.MaxPool2d(2),
        cb.Conv2d(16, 32, 3, padding=1, bias=False), cb.BatchNorm2d(32), cb.LeakyReLU(), cb.MaxPool2d(2),
        cb.AdaptiveAvgPool2d(3), cb.Flatten(), cb.Dropout(0.3), cb.Linear(288, 10),
    )
    rng = np.random.default_rng(0)
    state, optimizer = network.init(rng, cb.he_fan_in), cb.Adam(lr=1e-2)

    def batch(pixels):  # (batch, 28, 28) bytes → (1, 28, 28, batch) standardised
        return ((np.float32(pixels) / 255 - 0.1307) / 0.3081).transpose(1, 2, 0)[None]

    x, labels = batch(images("train")), read("train-labels-idx1", 8)
    for epoch, loss in enumerate(cb.fit(network, state, x, labels, optimizer, rng=rng, epochs=1)):
        print(f"epoch {epoch}: loss {loss:.3f}")
    guesses = cb.predict(network, state, batch(images("t10k"))).argmax(axis=0)
    print(f"accuracy {np.mean(guesses == read('t10k-labels-idx1', 8)):.2%}")
"""

from custom_backend.functional.loss import (
    cross_entropy_backward,
    cross_entropy_forward,
    focal_loss_backward,
    focal_loss_forward,
    mse_loss_backward,
    mse_loss_forward,
)
from custom_backend.init import he_fan_in, he_fan_out, lecun_normal, torch_default
from custom_backend.layers import (
    GELU,
    SELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GroupNorm,
    Identity,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from custom_backend.network import Concat, Residual, Sequential
from custom_backend.optim import SGD, Adam, AdamW
from custom_backend.summary import summary
from custom_backend.training import fit, load, predict, save

__all__ = [
    "GELU", "SELU", "SGD", "Adam", "AdamW", "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Concat",
    "Conv2d", "Dropout", "Flatten", "GroupNorm", "Identity", "Layer", "LayerNorm", "LeakyReLU", "Linear",
    "LogSoftmax", "MaxPool2d", "ReLU", "Residual", "Sequential", "SiLU", "Sigmoid", "Softmax", "Tanh",
    "cross_entropy_backward", "cross_entropy_forward", "fit", "focal_loss_backward", "focal_loss_forward",
    "he_fan_in", "he_fan_out", "lecun_normal", "load", "mse_loss_backward", "mse_loss_forward", "predict",
    "save", "summary", "torch_default",
]  # fmt: skip
