"""The figures say what the numbers say, whatever the numbers are."""

import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiment.plots.comparison import Comparison, Effect, verdict
from experiment.plots.run import Picture, augmented_samples, confusion_matrix, mistakes, training_curves
from experiment.plots.style import save


def run(epochs: int) -> list[dict[str, float | None]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 2.0 / epoch,
            "val_loss": 2.2 / epoch,
            "train_acc": 0.9 - 0.5 / epoch,
            "val_acc": 0.85 - 0.5 / epoch,
            "lr": 1e-3,
        }
        for epoch in range(1, epochs + 1)
    ]


def texts(figure: Figure) -> list[str]:
    """Every text of the figure as drawn, ticks included."""
    figure.draw_without_rendering()
    found = figure.findobj(Text)
    return [text.get_text() for text in found if isinstance(text, Text) and text.get_text()]


def digits(number: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 28, 28, channels), dtype=np.uint8)


def images_of(figure: Figure) -> list[np.ndarray]:
    """What is shown, from left to right and top to bottom."""
    return [picture.image for picture in figure.findobj(Picture) if isinstance(picture, Picture)]


@pytest.mark.parametrize("epochs", [1, 2, 10, 100])
def test_curves_mark_and_label_the_best_epoch(epochs: int):
    rows = run(epochs)
    best = (epochs + 1) // 2
    rows[best - 1]["val_acc"] = 0.8978
    figure = training_curves(rows, "CIFAR-10", "seed 0")
    assert [text for text in texts(figure) if "best" in text] == [f"best epoch {best}: 89.78 %"]
    by_loss = training_curves(rows, "CIFAR-10", "seed 0", monitor="val_loss")
    assert [text for text in texts(by_loss) if "best" in text] == [
        f"best epoch {epochs}: {2.2 / epochs:#.3g}"
    ]
    dots = [(line.get_xdata(), line.get_ydata()) for line in figure.axes[1].lines]
    assert any(list(x) == [best] and list(y) == [pytest.approx(89.78)] for x, y in dots)


def test_the_first_of_equally_good_epochs_is_the_best():
    rows = run(5)
    rows[1]["val_acc"] = rows[3]["val_acc"] = 0.95
    assert "best epoch 2: 95.00 %" in texts(training_curves(rows, "t", "s"))


def test_without_validation_nothing_is_best():
    rows = run(3)
    for row in rows:
        row["val_loss"] = None
        del row["val_acc"]
    shown = texts(training_curves(rows, "t", "s"))
    assert "train" in shown
    assert "validation" not in shown
    assert not any("best" in text for text in shown)


def test_the_best_epoch_is_marked_where_it_was_chosen():
    rows = run(4)
    for row in rows:
        row["val_acc"] = None
    rows[2]["val_loss"] = 0.125
    shown = texts(training_curves(rows, "t", "s", monitor="val_loss"))
    assert [text for text in shown if "best" in text] == ["best epoch 3: 0.125"]


@pytest.mark.parametrize(("last", "scale"), [(0.07, "linear"), (0.05, "log"), (0.0, "linear")])
def test_the_loss_is_logarithmic_beyond_one_and_a_half_decades(last: float, scale: str):
    rows = run(2)
    for row, loss in zip(rows, (2.0, last), strict=True):
        row["train_loss"] = row["val_loss"] = loss
    figure = training_curves(rows, "t", "s")
    assert figure.axes[0].get_yscale() == scale
    assert figure.axes[1].get_yscale() == "linear"
    assert ("Loss, log scale" in texts(figure)) == (scale == "log")


def test_the_label_of_the_best_epoch_covers_no_value():
    rows = run(10)
    for row in rows[5:]:
        row["train_acc"] = row["val_acc"] = 0.1
    figure = training_curves(rows, "t", "s")
    axes = figure.axes[1]
    figure.draw_without_rendering()
    (label,) = [text for text in axes.texts if "best" in text.get_text()]
    lowest = axes.transData.transform((1, 10.0))[1]
    assert label.get_window_extent().y1 < lowest


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("epochs", [0, 1, 10])
def test_curves_of_a_run_that_never_was_finite(value: float, epochs: int, tmp_path: Path):
    keys = ("train_loss", "val_loss", "train_acc", "val_acc")
    figure = training_curves([dict.fromkeys(keys, value) | {"epoch": e + 1} for e in range(epochs)], "t", "s")
    assert texts(figure).count("no finite value") == 2
    save(figure, tmp_path / "curves.png")


def test_a_diverged_run_says_how_much_is_not_finite():
    rows = run(10)
    for row in rows[7:]:
        row["train_loss"] = math.nan
    shown = texts(training_curves(rows, "t", "s"))
    assert "epoch (3 of 20 values not finite)" in shown
    assert "best epoch 10: 80.00 %" in shown


def test_validation_of_every_other_epoch_is_one_line():
    rows = run(6)
    for row in rows[::2]:
        row["val_acc"] = row["val_loss"] = None
    lines = training_curves(rows, "t", "s").axes[1].lines
    assert any(list(np.asarray(line.get_xdata())) == [2, 4, 6] for line in lines)


@pytest.mark.parametrize("number", [1, 2, 10, 20, 21, 100])
def test_confusion_matrix_shows_counts_up_to_twenty_classes(number: int):
    counts = np.full((number, number), 7) + 900 * np.eye(number, dtype=np.int64)
    figure = confusion_matrix(counts, [f"class {index}" for index in range(number)], "test")
    shown = texts(figure)
    assert shown.count("907") == (number if number <= 20 else 0)
    assert sum(text.startswith("class ") for text in shown) <= 40
    assert any(f"accuracy {100 * 907 / (900 + 7 * number):.2f} %" in text for text in shown)
    assert {"true class", "predicted class", "class 0"} <= set(shown)


def test_confusion_matrix_colours_are_shares_of_the_row():
    counts = np.array([[99, 1], [0, 0]], dtype=np.uint8)
    figure = confusion_matrix(counts, ["a", "b"], "test")
    cells, scale = (artist.image.astype(int) for artist in figure.artists if isinstance(artist, Picture))
    frequent, rare, white = cells[0, 0], cells[0, 1], scale[-1, 0]
    assert (cells[1] == [0xE4, 0xE7, 0xEB, 0xFF]).all(), "no sample, no share"
    assert (white == 255).all()
    assert np.abs(white - rare).max() > 50, "one mistake in a hundred is hardly visible"
    assert np.abs(rare - frequent).max() > 50
    assert (scale == frequent).all(axis=-1).any(), "the scale has the colours of the cells"


def test_confusion_matrix_without_samples(tmp_path: Path):
    figure = confusion_matrix(np.zeros((3, 3), np.int64), ["a", "b", "c"], "test")
    assert any("no images" in text for text in texts(figure))
    save(figure, tmp_path / "confusion.png")


def test_long_class_names_are_cut_and_stay_inside():
    names = ["W" * 30, "automobile", r"$\broken$", "a" * 30]
    figures = [
        confusion_matrix(np.eye(4, dtype=np.int64), names, "test"),
        mistakes(digits(4), names, names[::-1], [0.9] * 4, "test", 4),
        mistakes(np.tile(digits(4), (2, 1, 1, 1)), names * 2, names * 2, [0.9] * 8, "test", 8),
        augmented_samples(digits(4), digits(8).reshape(2, 4, 28, 28, 1), names, "test"),
        training_curves(run(2), " ".join(["model.width=128"] * 12), "_".join(["data=cifar10"] * 20)),
    ]
    for figure in figures:
        shown = texts(figure)
        assert names[0] not in shown
        if figure is not figures[-1]:
            assert {"automobile", r"$\broken$"} <= set(shown)
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert drawn.x0 >= 0
        assert drawn.y0 >= 0
        assert drawn.x1 <= width
        assert drawn.y1 <= height


def test_mistakes_are_the_most_confident_in_order():
    images = digits(30)
    confidences = np.random.default_rng(1).permutation(30) / 30
    names = [f"is {index}" for index in range(30)]
    figure = mistakes(
        images, names, [name.replace("is", "said") for name in names], list(confidences), "test", 30
    )
    order = np.argsort(-confidences)[:24]
    shown = images_of(figure)
    assert len(shown) == 24
    for array, index in zip(shown, order, strict=True):
        np.testing.assert_array_equal(array, images[index])
    lines = texts(figure)
    assert [line for line in lines if line.startswith("is ")] == [f"is {index}" for index in order]
    assert [line for line in lines if line.startswith("said ")] == [f"said {index}" for index in order]
    assert "96.7 %" in lines
    assert any("24 most confident of 30" in line for line in lines)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_few_mistakes(number: int):
    figure = mistakes(digits(number, 3), ["cat"] * number, ["dog"] * number, [0.5] * number, "test", number)
    assert len(images_of(figure)) == number
    assert texts(figure).count("cat") == texts(figure).count("dog") == number


def test_no_mistakes_says_so(tmp_path: Path):
    figure = mistakes(digits(0), [], [], [], "test", 0)
    assert any("No mistakes" in text for text in texts(figure))
    save(figure, tmp_path / "mistakes.png")
    assert (tmp_path / "mistakes.png").stat().st_size > 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_augmented_samples_has_a_row_for_each_image(channels: int):
    originals = digits(2, channels)
    draws = digits(6, channels).reshape(3, 2, 28, 28, channels)
    as_bytes = augmented_samples(originals, draws, ["cat", "dog"], "test")
    as_floats = augmented_samples(originals, draws.astype(np.float32) / 255, ["cat", "dog"], "test")
    expected = [image for row in range(2) for image in (originals[row], *draws[:, row])]
    for figure in (as_bytes, as_floats):
        assert {"cat", "dog", "original"} <= set(texts(figure))
        for shown, image in zip(images_of(figure), expected, strict=True):
            np.testing.assert_array_equal(shown, image)


def test_without_augmentation_there_is_one_column():
    figure = augmented_samples(digits(2), digits(0).reshape(0, 2, 28, 28, 1), ["cat", "dog"], "test")
    assert len(images_of(figure)) == 2
    assert "random draws" not in texts(figure)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(28, 28), (10, 28)])
def test_a_picture_shows_the_pixels_where_they_are(channels: int, size: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    image[..., 3:] = 255
    figure = Figure((2, 2))
    figure.add_artist(Picture(image, 0.5, 0.5, 1.0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())
    side = figure.dpi / max(size)  # of a pixel
    for row, column in [(0, 0), (0, size[1] - 1), (size[0] - 1, 0), (size[0] // 2, size[1] // 3)]:
        down = figure.dpi + (row + 0.5 - size[0] / 2) * side
        right = figure.dpi + (column + 0.5 - size[1] / 2) * side
        near = drawn[int(down) - 1 : int(down) + 2, int(right) - 1 : int(right) + 2, :3].reshape(-1, 3)
        assert np.broadcast_to(image[row, column, :3], 3).tolist() in near.tolist()


def test_save_writes_a_png_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    save(training_curves(run(3), "t", "s"), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def fails(target: Path, content: bytes) -> None:
        target.write_text("half a fig")
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="no space"):
        save(training_curves(run(3), "t", "s"), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_the_global_state_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    texts(training_curves(run(3), "t", "s"))
    texts(confusion_matrix(np.eye(3, dtype=np.int64), ["a", "b", "c"], "test"))
    assert dict(matplotlib.rcParams) == before


def test_import_brings_neither_pyplot_nor_torch():
    heavy = {"matplotlib.pyplot", "torch", "lightning"}
    code = f"import sys, experiment.plots.run; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_without_a_partner_moves_neither_the_picture_nor_its_mean():
    cells = {"a=1": {"seed=0": 0.5, "seed=1": 0.6, "seed=0 b=2": 0.1}, "a=2": {"seed=0": 0.7, "seed=1": 0.6}}
    effect = Effect("a=2 − a=1", {"seed=0": 0.2, "seed=1": 0.0}, 0.1, math.nan, math.nan)
    runs, _ = verdict("Does a matter?", "undecided", [Comparison("test_acc", {"all": cells}, [effect])]).axes
    heights = {round(float(y), 6) for line in runs.lines for y in line.get_ydata()}
    assert heights == {50.0, 60.0, 70.0, 55.0, 65.0}
