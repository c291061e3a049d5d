"""predict.py: images of any kind in, classes out, without the data set that the run was trained on."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image, ImageFilter

from experiment.errors import UserError
from experiment.plots import run as plots
from experiment.run import Run
from lightning_modules.build import build_data
from lightning_modules.data.appearance import Appearance
from lightning_modules.data.decoding import read_images
from lightning_modules.data.sources import mnist_mini
from lightning_modules.loading import load_classifier
from lightning_modules.prediction import DIGITS, Reader
from tests.conftest import composed

EntryPoint = Callable[..., SimpleNamespace]


@pytest.fixture
def run(trained: Callable[..., Run]) -> Run:
    return trained()


@pytest.fixture(scope="session")
def digits() -> torch.Tensor:
    return mnist_mini().test_images[::40]


@pytest.fixture
def folder(tmp_path: Path, digits: torch.Tensor) -> Path:
    """25 real digits, some of them in a folder below."""
    for index, digit in enumerate(digits):
        path = tmp_path / "images" / ("deep/er" if index % 2 else "") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit[0].numpy()).save(path)
    return tmp_path / "images"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def copy(run: Run, to: Path, **replaced: str) -> Path:
    """A copy of a run folder with other lines in its configuration."""
    shutil.copytree(run.folder, to)
    text = (to / "config.yaml").read_text()
    for key, value in replaced.items():
        (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{key}: "))
        text = text.replace(line, f"{line.partition(':')[0]}: {value}")
    (to / "config.yaml").write_text(text)
    return to


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_predictions_are_the_classifiers(
    trained: Callable[..., Run],
    run_entry_point: EntryPoint,
    folder: Path,
    digits: torch.Tensor,
    tmp_path: Path,
    engine: str,
):
    run = trained(f"model.engine={engine}")
    done = run_entry_point(
        "predict.py", f"run={run.folder}", f"images={folder}", f"out={tmp_path / 'new' / 'out'}"
    )
    assert (done.code, done.err) == (0, "")
    with torch.no_grad():
        expected = load_classifier(run, run.checkpoint("best"), reference=True)(digits / 255).softmax(dim=1)
    found = rows(tmp_path / "new" / "out" / "predictions.csv")
    assert [row["image"] for row in found] == sorted(map(str, folder.rglob("*.png")))
    for row in found:
        values, labels = expected[int(Path(row["image"]).stem)].topk(2)
        assert [row["predicted"], row["runner_up"]] == [str(label) for label in labels.tolist()]
        told = [float(row["confidence"]), float(row["runner_up_confidence"])]
        assert told == pytest.approx(values.tolist(), abs=2e-6)
    with Image.open(tmp_path / "new" / "out" / "predictions.png") as sheet:
        assert sheet.size[0] == 1600
    lines = done.out.splitlines()
    assert lines[0].split() == ["image", "predicted", "confidence", "runner-up"]
    assert lines[1].split()[:2] == ["00.png", found[0]["predicted"]]
    assert lines[21] == "… and 5 more"


def test_one_file_goes_beside_the_run(run: Run, run_entry_point: EntryPoint, folder: Path, tmp_path: Path):
    moved = copy(run, tmp_path / "moved", dataset="cifar10", root=str(tmp_path / "nowhere"))
    done = run_entry_point("predict.py", f"run={moved}", f"images={folder / '00.png'}", "ckpt=last")
    assert (done.code, done.err) == (0, "")
    assert len(rows(moved / "predictions" / "predictions.csv")) == 1
    assert done.out.splitlines()[1].startswith("00.png ")


def test_any_size_and_mode_is_read(run: Run, run_entry_point: EntryPoint, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 4), dtype=np.uint8)
    colour = Image.fromarray(noise[..., :3])
    images = {f"{mode}.tiff": colour.convert(mode) for mode in ("1", "L", "P", "RGB", "CMYK", "LAB")}
    images |= {
        "alpha.png": Image.fromarray(noise),
        "16 bit.png": Image.fromarray(noise[..., 0].astype(np.uint16)),
    }
    images |= {"one pixel.gif": colour.crop((0, 0, 1, 1)), "$x^$ 猫.webp": colour}
    (tmp_path / "images").mkdir()
    for name, image in images.items():
        image.save(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    done = run_entry_point(
        "predict.py", f"run={run.folder}", f"images={tmp_path / 'images'}", f"out={tmp_path}"
    )
    assert (done.code, done.err) == (0, "")
    assert {Path(row["image"]).name for row in rows(tmp_path / "predictions.csv")} == images.keys()


def test_images_are_brought_to_the_shape(tmp_path: Path):
    exact = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(exact).save(tmp_path / "exact.png")
    wide = np.zeros((12, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 200  # what is left of it
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (tmp_path / "bad.png").write_text("no image")
    files = [str(tmp_path / f"{name}.png") for name in ("exact", "bad", "wide")]
    paths, images, (problem,) = read_images(files, (3, 6, 8))
    assert paths == [files[0], files[2]]
    assert (images[0].permute(1, 2, 0).numpy() == exact).all()
    assert (images[1, :, :, 1:-1] == 200).all()
    assert "bad.png is not a readable image" in problem
    _, grey, _ = read_images(files[:1], (1, 6, 8))
    assert (grey[0, 0].numpy() == np.asarray(Image.fromarray(exact).convert("L"))).all()
    with pytest.raises(UserError, match="no image file has 2 channels"):
        read_images(files, (2, 6, 8))


@pytest.fixture(scope="module")
def reader_of_digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learnt the digits, in seconds."""
    from lightning_modules.training import train

    folder = tmp_path_factory.mktemp("digits")
    quick = ("scheduler=onecycle", "optimizer.lr=2e-2", "trainer.max_epochs=4", "data.train_images=2000")
    small = ("model.widths=[8,16,32]",)
    silent = ("logger=none", "callbacks.figures=null", "trainer.accelerator=cpu")
    run = Run.create(composed(f"output_dir={folder}", *quick, *small, *silent), folder, "run")
    train(run.config, run)
    return run


def enlarged(digit: np.ndarray) -> np.ndarray:
    """As if drawn with a pen on a canvas that is 14 times as large."""
    return np.asarray(Image.fromarray(digit).resize((224, 224), Image.Resampling.BICUBIC))


def off_centre(digit: np.ndarray) -> np.ndarray:
    canvas = np.zeros((500, 400), np.uint8)
    canvas[30:254, 150:374] = digit
    return canvas


def thick(digit: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(digit).filter(ImageFilter.MaxFilter(9)))


def on_paper(digit: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 5, digit.shape)
    return (220 - 0.7 * digit + noise).clip(0, 255).astype(np.uint8)


DRAWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "black on white": lambda digit: 255 - digit,
    "moved": lambda digit: np.roll(np.pad(digit, 4), (3, -4), (0, 1)),
    "large": enlarged,
    "off-centre": lambda digit: off_centre(enlarged(digit)),
    "thick": lambda digit: off_centre(thick(enlarged(digit))),
    "thick and black": lambda digit: 255 - off_centre(thick(enlarged(digit))),
    "on paper": lambda digit: on_paper(off_centre(enlarged(digit))),
}


def test_digits_are_read_however_they_are_drawn(
    reader_of_digits: Run, run_entry_point: EntryPoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    digits, labels = (part[::10] for part in (mnist_mini().test_images, mnist_mini().test_labels))
    ways = {"as MNIST": lambda digit: digit, **DRAWN}
    for way, draw in ways.items():
        (tmp_path / "images" / way).mkdir(parents=True)
        for number, digit in enumerate(digits[:, 0].numpy()):
            Image.fromarray(draw(digit)).save(tmp_path / "images" / way / f"{number:03}.png")
    run, images = reader_of_digits.folder, tmp_path / "images"
    assert run_entry_point("predict.py", f"run={run}", f"images={images}", f"out={tmp_path}").code == 0
    right, changes = dict.fromkeys(ways, 0), {way: set() for way in ways}
    for row in rows(tmp_path / "predictions.csv"):
        path = Path(row["image"])
        right[path.parent.name] += row["predicted"] == str(int(labels[int(path.stem)]))
        changes[path.parent.name].add(row["changes"])
    assert changes == {way: {"centred"} for way in ways} | {
        "as MNIST": {""}, "black on white": {"inverted"}, "thick and black": {"inverted centred"},
        "on paper": {"inverted centred"},
    }  # fmt: skip
    assert "300 of 800 images were inverted" in caplog.text
    assert "600 of 800 images were cut out" in caplog.text
    assert "unlike" not in caplog.text
    assert right["as MNIST"] > 88
    # which of the two is dark makes no difference; a thick pen does, which fills the holes of an 8
    assert right["black on white"] == right["as MNIST"]
    assert right["thick and black"] == right["thick"]
    for way, number in right.items():
        assert number >= right["as MNIST"] - (6 if "thick" in way else 4), right


def test_what_is_asked_for_is_done_and_not_warned_of(
    reader_of_digits: Run, run_entry_point: EntryPoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    Image.fromarray(255 - mnist_mini().test_images[0, 0].numpy()).save(tmp_path / "0.png")
    call = (
        "predict.py",
        f"run={reader_of_digits.folder}",
        f"images={tmp_path / '0.png'}",
        f"out={tmp_path / 'out'}",
    )
    assert run_entry_point(*call, "invert=true").code == 0
    assert caplog.text == ""
    assert rows(tmp_path / "out" / "predictions.csv")[0]["changes"] == "inverted"
    assert run_entry_point(*call, "invert=false", "center=false").code == 0
    assert "1 of 1 images are unlike those trained on, such as" in caplog.text
    assert rows(tmp_path / "out" / "predictions.csv")[0]["changes"] == ""
    assert "invert=maybe" in run_entry_point(*call, "invert=maybe").err


def test_an_old_run_says_as_much_as_it_can(
    reader_of_digits: Run, run_entry_point: EntryPoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    Image.fromarray(255 - mnist_mini().test_images[0, 0].numpy()).save(tmp_path / "0.png")
    for dataset in ("mnist_mini", "fashion_mnist"):
        old = Run(copy(reader_of_digits, tmp_path / dataset, dataset=dataset))
        facts = {key: value for key, value in old.provenance["data"].items() if key != "appearance"}
        old.write_json("provenance.json", old.provenance | {"data": facts})
        assert run_entry_point("predict.py", f"run={old.folder}", f"images={tmp_path / '0.png'}").code == 0
        assert rows(old.folder / "predictions" / "predictions.csv")[0]["changes"] == "inverted"
        assert "1 of 1 images were inverted" in caplog.text


def test_sixteen_bits_are_scaled_as_in_the_training(
    run_entry_point: EntryPoint, tmp_path: Path, trained: Callable[..., Run]
):
    draw = np.random.default_rng(0)
    for name, offset in (("dim", 500), ("bright", 2500)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(10):
            values = (draw.integers(0, 400, (16, 16)) + offset).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / "set" / name / f"{number}.png")
    run = trained("data=image_folder", f"data.root={tmp_path / 'set'}")
    classifier = load_classifier(run, run.checkpoint("best"))
    data = build_data(run.config)
    _, pixels, _ = Reader(run, classifier, None, None).read([str(tmp_path / "set" / data._data.paths[0])])
    assert run.provenance["data"]["pixel_range"] == [0, 4095]
    assert torch.equal(pixels[0], data._data.train_images[0])


@pytest.mark.parametrize("colours", [False, True])
def test_photographs_are_left_as_they_are(colours: bool):
    """Dark and light ones are equally like those of their set: neither is turned."""
    draw = np.random.default_rng(0)
    shades = draw.integers(0, 200, (200, 3 if colours else 1, 1, 1))
    images = (draw.integers(0, 56, (200, shades.shape[1], 16, 16)) + shades).astype(np.uint8)
    appearance = Appearance.of(images)
    assert appearance.box is None
    for image in images.transpose(0, 2, 3, 1):
        prepared = appearance.prepare(image, (16, 16), None, None)
        assert (prepared.changes, prepared.is_unlike) == ((), False)
        assert (prepared.pixels == image).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_image_can_be_prepared(data: st.DataObject):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    values = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 128, 255]), min_size=1, max_size=30))
    image = np.resize(np.array(values, np.uint8), (height, width, 1))
    asked = [data.draw(st.sampled_from([None, True, False])) for _ in range(2)]
    for appearance in (DIGITS, Appearance((0.5, 0.1))):
        prepared = appearance.prepare(image, (28, 28), *asked)
        assert prepared.pixels.shape == (28, 28, 1)
        assert prepared.pixels.dtype == np.uint8


def test_unreadable_images_are_named_and_skipped(
    run: Run, run_entry_point: EntryPoint, folder: Path, tmp_path: Path
):
    (folder / "half.png").write_bytes((folder / "00.png").read_bytes()[:-40])
    (folder / "deep" / "empty.jpg").touch()
    done = run_entry_point("predict.py", f"run={run.folder}", f"images={folder}", f"out={tmp_path}")
    assert done.code == 1
    assert "error: 2 of 27 images were skipped" in done.err
    assert f"{folder / 'half.png'} is not a readable image" in done.err
    assert f"{folder / 'deep' / 'empty.jpg'} is not a readable image" in done.err
    assert len(rows(tmp_path / "predictions.csv")) == 25
    assert (tmp_path / "predictions.png").exists()


def test_a_folder_without_a_readable_image(run: Run, run_entry_point: EntryPoint, tmp_path: Path):
    (tmp_path / "images").mkdir()
    arguments = (f"run={run.folder}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}")
    done = run_entry_point("predict.py", *arguments)
    assert done.code == 1
    assert "holds no image (.png .jpg" in done.err
    (tmp_path / "images" / "a.png").write_text("no image")
    done = run_entry_point("predict.py", *arguments)
    assert done.code == 1
    assert "none can be read" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run": "nowhere"}, "nowhere is not a run folder: it does not exist"),
        ({"images": "nowhere"}, "images=nowhere does not exist"),
        ({"images": ""}, "images=: the value is missing"),
        ({"ckpt": "nowhere.ckpt"}, "no checkpoint nowhere.ckpt"),
        ({"ckpt": __file__}, "is not a whole checkpoint"),
        ({"image": "x"}, "image=x: no such key. Did you mean images?"),
        ({"out": __file__}, "cannot be written to"),
    ],
)
def test_a_mistake_ends_with_its_message_and_code_1(
    run: Run, run_entry_point: EntryPoint, folder: Path, changed: dict[str, str], message: str
):
    given = {"run": str(run.folder), "images": str(folder)} | changed
    done = run_entry_point("predict.py", *(f"{key}={value}" for key, value in given.items()))
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert message in done.err


def test_a_run_without_a_checkpoint(run: Run, run_entry_point: EntryPoint, folder: Path, tmp_path: Path):
    shutil.rmtree(copy(run, tmp_path / "copy") / "checkpoints")
    done = run_entry_point("predict.py", f"run={tmp_path / 'copy'}", f"images={folder}")
    assert done.code == 1
    assert "checkpoints/best.ckpt. ckpt= takes best, last" in done.err


def test_what_is_no_checkpoint_of_this_network(
    run: Run, trained: Callable[..., Run], run_entry_point: EntryPoint, folder: Path, tmp_path: Path
):
    other = trained("model=enhanced").checkpoint("best")
    done = run_entry_point("predict.py", f"run={run.folder}", f"images={folder}", f"ckpt={other}")
    assert done.code == 1
    assert "holds the weights of another network" in done.err
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.ckpt")
    done = run_entry_point(
        "predict.py", f"run={run.folder}", f"images={folder}", f"ckpt={tmp_path / 'foreign.ckpt'}"
    )
    assert done.code == 1
    assert "foreign.ckpt is not a checkpoint of train.py" in done.err


@pytest.mark.parametrize(("number", "total", "told"), [(1, 1, "all 1"), (36, 1200, "36 of 1,200, spread")])
def test_the_contact_sheet_says_what_it_shows(number: int, total: int, told: str):
    images = np.zeros((number, 6, 8, 1), dtype=np.uint8)
    names = [f"a long and winding name {index}.png" for index in range(number)]
    figure = plots.predictions(images, names, ["cat"] * number, [0.987] * number, "Predictions", total)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any(told in text for text in texts)
    assert texts.count("cat") == texts.count("98.7 %") == number
    assert sum(text.startswith("…") and text.endswith(f"{number - 1}.png") for text in texts) >= 1
