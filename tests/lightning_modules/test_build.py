"""The one place that turns a ``_target_`` into an object."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import lightning_modules
from experiment.errors import UserError
from experiment.instantiate import instantiate
from experiment.schema import problems
from lightning_modules.build import ImageFacts, build_classifier, build_data, build_trainer


def test_instantiate_passes_options_on():
    layer = instantiate(OmegaConf.create({"_target_": "torch.nn.Linear", "bias": False}), 2, out_features=3)
    assert isinstance(layer, torch.nn.Linear)
    assert layer.weight.shape == (3, 2)
    assert layer.bias is None


# what torch, lightning and this project hold that imports, opens, writes, executes or loads something
ATTACKS = [
    "torch.nn.attention._fa3._fa3_import_module",
    "torch.load",
    "torch.hub.load",
    "torch.nn.torch.load",
    "torch.nn.modules.module.torch.load",
    "torch.nn.modules.module.Module.load_state_dict",
    "torch.nn.functional.importlib.import_module",
    "torch.nn.parallel.distributed.os.system",
    "torch.nn.factory_kwargs",
    "torch.optim.swap_in_optimizer_params_and_state",
    "torch.optim.swa_utils.AveragedModel",
    "torch.optim.optimizer.warnings.sys.exit",
    "torch.utils.cpp_extension.load",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.os.system",
    "lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.loggers.csv_logs.ExperimentWriter",
    "lightning.pytorch.utilities.migration.migrate_checkpoint",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning_modules.build.import_module",
    "lightning_modules.loading.pickle.loads",
    "lightning_modules.loading.load_checkpoint",
    "lightning_modules.data.sources.cifar10",
    "lightning_modules.networks.blocks.OrderedDict",
    "lightning_modules.networks.blocks.torch_nn.Linear",
    "lightning_modules.callbacks.figures.plt.savefig",
    "experiment.run.write_atomically",
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "__main__.main",
    "",
    "torch.nn.",
    "torch..nn.Linear",
    "torch.nnx.Linear",
    "torch.nn.Linea",
]


@pytest.mark.parametrize("target", ATTACKS)
def test_a_target_that_is_no_registered_kind_is_refused_and_nothing_is_imported(target, monkeypatch):
    monkeypatch.setattr("experiment.instantiate.import_module", lambda name: pytest.fail(f"imports {name}"))
    with pytest.raises(UserError, match="_target_="):
        instantiate(OmegaConf.create({"_target_": target}))


@pytest.mark.parametrize("script", ["evaluate.py", "predict.py", "export.py", "train.py"])
def test_a_run_folder_from_a_stranger_runs_nothing(script, run_entry_point, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[1] / "old_runs" / "finished", folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    config = OmegaConf.load(folder / "config.yaml")
    target = "torch.nn.attention._fa3._fa3_import_module"
    config.loss = {"_target_": target, "module_path": str(folder / "evil.py")}
    OmegaConf.save(config, folder / "config.yaml")
    more = {"predict.py": [f"images={tmp_path}"], "export.py": ["format=onnx"]}.get(script, [])
    done = run_entry_point(script, f"{'resume' if script == 'train.py' else 'run'}={folder}", *more)
    assert done.code == 1
    assert f"loss._target_={target}" in done.err
    assert not (tmp_path / "harm").exists()


KEEP = "+callbacks.keep={_target_:lightning.pytorch.callbacks.ModelCheckpoint,dirpath:kept}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger.tensorboard.name", "../../elsewhere"),
        ("logger.tensorboard.version", "/tmp/elsewhere"),
        ("logger.tensorboard.sub_dir", "~/elsewhere"),
        ("callbacks.keep.dirpath", "/tmp/elsewhere"),
        ("callbacks.keep.filename", "a/../../../{epoch}"),
        ("callbacks.keep.dirpath", "file:///tmp/elsewhere"),
        ("callbacks.keep.dirpath", "C:\\elsewhere"),
        ("callbacks.keep.filename", "..\\elsewhere"),
        ("name", "../up"),
        ("name", "."),
        ("name", "n" * 300),
        ("sweep.name", "a/b"),
        ("sweep.name", ".."),
        ("output_dir", ""),
        ("resume", " "),
    ],
)
def test_nothing_is_written_outside_the_output_folder(configure, key, value):
    config = configure(KEEP)
    assert problems(config) == []
    OmegaConf.update(config, key, value, force_add=True)
    (line,) = problems(config)
    assert line.startswith(f"{key}=")


def test_a_callback_s_folder_lies_in_the_run_folder(configure, tmp_path):
    trainer = build_trainer(configure("logger=none", KEEP), tmp_path)
    assert str(tmp_path / "kept") in [getattr(callback, "dirpath", None) for callback in trainer.callbacks]


def test_options_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"torch\.nn\.Dropout cannot be built from .*prob"):
        instantiate(OmegaConf.create({"_target_": "torch.nn.Dropout", "prob": 0.5}))


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ([], "min"),
        (["callbacks.early_stopping.monitor=val_acc"], "max"),
        (["callbacks.early_stopping.monitor=val_ece"], "min"),
        (["callbacks.early_stopping.monitor=val_acc", "callbacks.early_stopping.mode=min"], "min"),
    ],
)
def test_early_stopping_looks_the_way_in_which_its_metric_is_better(options, mode, configure, tmp_path):
    config = configure("callbacks=early_stopping", "metrics=[acc,ece]", "logger=none", *options)
    trainer = build_trainer(config, tmp_path)
    (stopping,) = trainer.early_stopping_callbacks
    assert stopping.mode == mode


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.size_schedule=[28,14]"],  # its last layer counts on 7×7
        ["data.size_schedule=[2,28]", "model.pooling=adaptive_avg"],
        ["model=fast", "data.size_schedule=[8]"],
    ],
    ids=" ".join,
)
def test_heights_that_a_network_cannot_take_are_refused_before_it_is_trained(configure, overrides):
    config = configure(*(f"++{one}" if "." in one else one for one in overrides))
    with pytest.raises(UserError, match=r"size_schedule: this network takes no images of \d+×\d+ pixels"):
        build_classifier(config, build_data(config))


def test_stopping_early_needs_a_validation_set(tmp_path):
    with pytest.raises(UserError, match=r"early_stopping\.monitor=val_loss: .* has no validation set"):
        lightning_modules.train(
            "trainer=smoke",
            "callbacks=early_stopping",
            "data.val_fraction=0",
            "logger=none",
            f"output_dir={tmp_path}",
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["torch.nn.MSELoss", "torch.nn.NLLLoss", "torch.nn.ReLU"])
def test_a_loss_that_takes_no_labels_is_told_before_the_training(configure, target):
    node = {"loss": {"_target_": target}}
    facts = ImageFacts((1, 28, 28), ("a", "b", "c"), (0.0,), (1.0,))
    config = OmegaConf.merge({k: v for k, v in configure().items() if k != "loss"}, node)
    if target.endswith("NLLLoss"):
        build_classifier(config, facts)
    else:
        with pytest.raises(UserError, match=f"loss needs to take labels.* not {target}"):
            build_classifier(config, facts)


@pytest.mark.parametrize(("gib", "is_said"), [(0.4, True), (4, False)])
def test_a_batch_that_memory_may_not_hold_is_told(tmp_path, monkeypatch, caplog, gib, is_said):
    monkeypatch.setattr("lightning_modules.training.memory_limit", lambda: int(gib * 2**30))
    with caplog.at_level("WARNING"):
        lightning_modules.train(
            *("trainer=smoke", "logger=none", "callbacks.figures=null", "model.widths=[4,8]"),
            f"output_dir={tmp_path}",
        )
    assert ("batches of 128 such images takes about" in caplog.text) == is_said
