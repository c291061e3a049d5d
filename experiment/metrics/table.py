"""The table of metrics: one row a metric, which says everything that others need to know of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiment.errors import UserError

Logits = NDArray[np.floating]
"""(N, K) floats: of each of N images a number for each of K classes."""
Labels = NDArray[np.integer]
"""(N,) integers in [0, K): the true classes."""
Function = Callable[..., float]

STAGES = {"train": "training", "val": "validation", "test": "test"}
"""Parts of the data that metrics are measured on: ``val_acc`` is ``acc`` of the validation set."""


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Args:
        key: its name: ``acc`` makes the columns ``train_acc``, ``val_acc`` and ``test_acc``.
        words: what a person calls it.
        unit: ``"%"`` of a value in [0, 1] that is shown in per cent, ``"points"`` of such a difference,
            ``"s"`` or ``""``.
        better: ``"higher"``, ``"lower"``, or ``""`` where neither is better.
        when: ``"epoch"``: after every epoch, of training and validation data too; ``"end"``: of the final
            test only.
        digits: digits that are shown of a value without ``"%"``.
        min_classes: the fewest classes with which it says anything.
        views: whether its logits are means over views of each test image (test-time augmentation).
        function: computes it from :data:`Logits` and :data:`Labels`; None of what is measured otherwise.
    """

    key: str
    words: str
    unit: str = ""
    better: Literal["higher", "lower", ""] = "higher"
    when: Literal["epoch", "end"] = "epoch"
    digits: int = 3
    min_classes: int = 1
    views: bool = False
    function: Function | None = None

    def __call__(self, logits: Logits, labels: Labels, **options: Any) -> float:
        """The value over the N images; NaN or infinity where it has none."""
        assert self.function is not None, f"{self.key} is no function of logits and labels"
        return float(self.function(logits, labels, **options))

    @property
    def sign(self) -> int:
        """1, or -1 where lower is better: the best value is that with the largest ``sign * value``."""
        return -1 if self.better == "lower" else 1

    @property
    def factor(self) -> float:
        """By which a value is multiplied to be in the unit."""
        return 100.0 if self.unit in ("%", "points") else 1.0

    def short(self, value: float) -> str:
        """A value for a line of the terminal: ``97.50%`` or ``0.0813``."""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f}"


TABLE: dict[str, Metric] = {}
"""Key → row; :func:`metric` and :func:`learn` add to it."""

MEASURED_OTHERWISE = (
    Metric("loss", "loss", better="lower", digits=4),
    Metric("final_train_loss", "final training loss", better="lower", digits=4, when="end"),
    Metric("lr", "learning rate", better=""),
    Metric("seconds", "seconds", "s", "lower"),
    Metric("seconds_per_epoch", "seconds per epoch", "s", "lower", "end"),
    Metric("images_per_second", "images per second"),
    Metric("epochs", "epochs", better="", when="end"),
    Metric("best_epoch", "best epoch", better="", when="end"),
    Metric("convergence_epoch", "convergence epoch", better="lower", when="end"),
    Metric("acc_falls", "accuracy falls", "points", "lower", "end"),
    Metric("parameters", "parameters", better="lower", when="end"),
    Metric("flops_per_image", "FLOPs per image", better="lower", when="end"),
)
TABLE |= {row.key: row for row in MEASURED_OTHERWISE}


def metric(
    key: str,
    words: str,
    *,
    unit: str = "",
    better: Literal["higher", "lower"] = "higher",
    when: Literal["epoch", "end"] = "epoch",
    digits: int = 3,
    min_classes: int = 1,
    views: bool = False,
) -> Callable[[Function], Metric]:
    """Make a function of logits and labels a row of the table: see :class:`Metric`.

    Raises:
        UserError: if another metric has that key already.
    """

    def add(function: Function) -> Metric:
        known = TABLE.get(key)
        other = known and known.function and _origin(known.function) != _origin(function)
        if known in MEASURED_OTHERWISE or other:
            raise UserError(f"{_origin(function)}: there is a metric {key} already: choose another key")
        if not key.isidentifier() or key.partition("_")[0] in STAGES:
            raise UserError(f"{_origin(function)}: a metric cannot be called {key!r}; kappa would be fine")
        TABLE[key] = Metric(key, words, unit, better, when, digits, min_classes, views, function)
        return TABLE[key]

    return add


def _origin(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def row(name: str) -> Metric:
    """The row of a metric or of a column: ``row("val_acc")`` is that of ``acc``, in the words of the column.

    A name that is not in the table has a row of its own, as far as a name says anything.
    """
    if name in TABLE:
        return TABLE[name]
    stage, _, key = name.partition("_")
    if stage in STAGES and key in TABLE:
        return replace(TABLE[key], words=f"{STAGES[stage]} {TABLE[key].words}")
    return Metric(name, " ".join(STAGES.get(word, word) for word in name.split("_")))


FACTS = [field.name for field in fields(Metric) if field.name != "function"]


def rows(metrics: Iterable[Metric]) -> dict[str, dict[str, Any]]:
    """Rows for ``results.json``, so that whoever reads it needs nobody's code: key → all but the function."""
    return {metric.key: {fact: getattr(metric, fact) for fact in FACTS} for metric in metrics}


def learn(written: Mapping[str, Mapping[str, Any]]) -> None:
    """Take rows of a ``results.json`` into the table, unless it has them."""
    for key, facts in written.items():
        if key not in TABLE:
            TABLE[key] = Metric(**{fact: value for fact, value in facts.items() if fact in FACTS})
