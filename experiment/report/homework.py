"""The course report that the project started from: its tables and figures, ours beside theirs."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from experiment.report import units
from experiment.report.figures import Panel, curves
from experiment.report.runs import Record

SWEEP = "homework"
"""Name of the sweep that repeats the report's experiments."""

THEIRS = {  # model= → what the report prints
    "enhanced": {
        "epochs": "100", "final_train_loss": "0.6745", "test_acc": "89.78 %", "convergence_epoch": "> 80",
    },
    "baseline": {"test_acc": "86.50 %"},
    "mnist": {
        "epochs": "10", "final_train_loss": "0.013", "test_acc": "99.05 %", "convergence_epoch": "5",
        "train_seconds": "2 min",
    },
    "custom": {"epochs": "5", "final_train_loss": "0.041", "test_acc": "97.59 %", "train_seconds": "15 min"},
}  # fmt: skip

TABLES = {  # title → model= and its name in the header, metrics of the rows
    "Table 1": (
        {"enhanced": "CIFAR-10", "mnist": "MNIST", "baseline": "CIFAR-10, baseline"},
        ("epochs", "final_train_loss", "test_acc", "convergence_epoch"),
    ),
    "Table 2": (
        {"mnist": "Part A (PyTorch)", "custom": "Part B (from scratch)"},
        ("epochs", "final_train_loss", "test_acc", "train_seconds"),
    ),
}

LOSS, ACCURACY = ("Training loss", "train_loss"), ("Validation accuracy, %", "val_acc")
FIGURES = {  # title → models, and for each panel what it shows and what the report says
    "Figure 1. CIFAR-10: (a) training loss, (b) validation accuracy": (
        ("baseline", "enhanced"),
        {LOSS: 0.6745, ACCURACY: 0.8978},
    ),
    "Figure 2. MNIST": (("mnist",), {LOSS: 0.013}),
    "Figure 3. MNIST, from scratch": (("custom",), {LOSS: 0.041}),
}


def tables(runs: Iterable[Record]) -> dict[str, list[list[str]]]:
    """Title → header and rows of the report's tables, with ours as mean ± standard deviation over seeds."""
    made = {}
    for title, (columns, metrics) in TABLES.items():
        header, rows = [""], [[units.name(metric).partition(",")[0]] for metric in metrics]
        for model, column in columns.items():
            ours = _of(model, runs)
            header += [f"{column}: the report", f"ours (mean ± sd, n = {len(ours)})"]
            for row, metric in zip(rows, metrics, strict=True):
                values = [run.metric(metric) for run in ours]
                row += [THEIRS[model].get(metric, "–"), units.spread(metric, values)]
        made[title] = [header, *rows]
    return made


def figures(runs: Iterable[Record]) -> list[Figure]:
    """The report's figures 1 to 3 of our runs, as far as there are any."""
    made = []
    for title, (models, shown) in FIGURES.items():
        ours = {f"model={model}": of_model for model in models if (of_model := _of(model, runs))}
        reference = f"the report, {models[-1]}"
        panels = [Panel(*what, ours, (reference, value)) for what, value in shown.items()]
        made += [curves(panels, title)] if ours else []
    return made


def _of(model: str, runs: Iterable[Record]) -> Sequence[Record]:
    return [run for run in runs if run.status == "finished" and run.values.get("model") == model]
