"""The schema: what it accepts, what it says, and that it covers everything in conf/."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiment.command_line import CONFIG_DIR
from experiment.schema import KNOBS, Knob, flatten, nearest, problem, problems

CHOICES = sorted(
    (path.parent.name, path.stem) for path in CONFIG_DIR.glob("*/*.yaml") if path.parent.name != "experiment"
)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", [0, 0.5], [1, -0.1, float("nan")]),
        ("(0, 1]", [1, 1e-9], [0, 1.1]),
        ("(0, inf)", [1e9], [0, float("inf"), float("nan")]),
    ],
)
def test_interval(interval, inside, outside):
    knob = Knob("float", "", interval)
    assert all(knob.accepts(value) for value in inside)
    assert not any(knob.accepts(value) for value in outside)


@pytest.mark.parametrize(
    ("key", "value", "is_allowed"),
    [
        ("seed", 1, True),
        ("seed", True, False),
        ("seed", 1.0, False),
        ("model.widths", [32, 64], True),
        ("model.widths", [], False),
        ("model.widths", [32, 0], False),
        ("model.batch_norm", 1, False),
        ("model.pooling", "max", False),
        ("name", None, True),
        ("optimizer.lr", None, False),
        ("optimizer.lr", 1, True),
        ("optimizer.lr", "fast", False),
        ("callbacks.x._target_", "os.system", False),
        ("callbacks.x._target_", "torchevil.system", False),
        ("callbacks.x._target_", "torch.nn.ReLU", True),
    ],
)
def test_problem(key, value, is_allowed):
    assert (problem(key, value) is None) == is_allowed


def test_an_undeclared_key_must_have_the_type_of_its_default():
    assert problem("model.depth", 3, default=2) is None
    assert "int" in (problem("model.depth", "deep", default=2) or "")


def test_the_message_names_key_value_range_and_nearest():
    message = problem("model.pooling", "adaptive_average")
    assert message is not None
    for part in (
        "model.pooling=adaptive_average",
        "adaptive_avg | fixed_avg | fixed_max",
        "Did you mean adaptive_avg?",
    ):
        assert part in message


def test_nearest_finds_the_last_part_of_a_key():
    assert "loss.label_smoothing" in nearest("label_smooting", KNOBS)
    assert nearest("zzz", KNOBS) == ""


@pytest.mark.parametrize(("group", "option"), CHOICES)
def test_every_option_composes_is_valid_and_declared(group, option):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        monitored = ["callbacks.checkpoint.monitor=val_loss"] if group == "metrics" else []  # there is no acc
        config = compose("train", [f"{group}={option}", *monitored])
    assert problems(config) == []
    undeclared = {
        key
        for key, value in flatten(config).items()
        if key not in KNOBS
        and not key.endswith("_target_")
        and key.split(".")[0] not in ("logger", "callbacks", "metrics")
    }
    assert undeclared == set()


def test_every_knob_exists_in_some_option():
    keys = set()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for group, option in CHOICES:
            keys |= set(flatten(compose("train", [f"{group}={option}"])))
    assert set(KNOBS) <= keys


@pytest.mark.parametrize("model", [path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")])
@pytest.mark.parametrize(
    "override", [["optimizer=sgd"], ["loss=focal"], ["scheduler=onecycle", "optimizer=adamw"]]
)
def test_a_group_on_the_command_line_replaces_the_recipe_s_wholly(model, override):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [f"model={model}", *override])
    for choice in override:
        group, option = choice.split("=")
        assert config[group] == OmegaConf.load(CONFIG_DIR / group / f"{option}.yaml")


def test_smoke_is_short_whatever_the_recipe():
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", ["model=enhanced", "trainer=smoke"])
    assert config.trainer.max_epochs == 1
