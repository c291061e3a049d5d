"""Which parameters are treated alike: hidden weights, the head, norms and biases."""

from typing import Any

from torch import nn

HIDDEN, HEAD, VECTORS = "hidden weights", "head", "norms and biases"


def parameter_groups(
    network: nn.Module,
    head_lr: float | None = None,
    bias_lr: float | None = None,
    no_decay_on_norms_and_biases: bool = False,
) -> list[dict[str, Any]]:
    """The trained parameters of a network in groups, as torch's optimizers take them.

    Each group has a ``kind``: the weights of convolutions and hidden layers, the weights of the last layer
    (``head``), and whatever is a vector (norms and biases). A parameter with an attribute ``until`` is in a
    group of its own, which says so.

    Args:
        network: whose parameters they are.
        head_lr: learning rate of the head; None = the optimizer's.
        bias_lr: learning rate of norms and biases; None = the optimizer's.
        no_decay_on_norms_and_biases: whether they have no weight decay.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    head = next((parameter for parameter in reversed(trained) if parameter.ndim > 1), None)
    rates = {HEAD: head_lr, VECTORS: bias_lr}
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for parameter in trained:
        kind = HEAD if parameter is head else HIDDEN if parameter.ndim > 1 else VECTORS
        until = getattr(parameter, "until", 1.0)
        group = groups.setdefault((kind, until), {"params": [], "kind": kind, "until": until})
        group["params"].append(parameter)
        if rates.get(kind) is not None:
            group["lr"] = rates[kind]
        if kind == VECTORS and no_decay_on_norms_and_biases:
            group["weight_decay"] = 0.0
    order = [HIDDEN, HEAD, VECTORS]  # the first group's rate is the one that is logged
    return sorted(groups.values(), key=lambda group: (order.index(group["kind"]), -group["until"]))
