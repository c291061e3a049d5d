"""The schema: what it accepts, what it says, and that it covers everything in conf/."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiment.command_line import CONFIG_DIR
from experiment.knob import EVERYTHING, Knob, nearest
from experiment.schema import KNOBS, flatten, knobs_of_options, known_knobs, problems

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
    ("kind", "right", "wrong"),
    [
        ("int", [1, -3], [True, 1.0, "1", None]),
        ("float", [1, 0.5], [True, "fast", None, float("nan")]),
        ("bool", [True], [1, "true"]),
        ("str", ["", "a"], [1, None]),
        ("path", ["a/b"], ["", " ", 3]),
        ("name", ["a", "ä b", "n" * 200], ["", ".", "..", "a/b", "a\\b", "n" * 201, "a\n", " a", 3]),
        ("list[int]", [[1], [1, 2]], [[], [1.5], 1, ["a"]]),
        ("tuple[float, float]", [[0.9, 0.99]], [[0.9], [1, 2, 3], 0.9]),
        ("int | float", [1, 0.5], ["a", True]),
        ("str | list[int]", ["a", [1]], [1, []]),
        ("any", [1, "a", [], {}], []),
    ],
)
def test_kinds(kind, right, wrong):
    assert all(Knob(kind).accepts(value) for value in right)
    assert not any(Knob(kind).accepts(value) for value in wrong)


def test_the_message_names_key_value_range_and_nearest():
    message = knobs_of_options()["model.pooling"].problem("model.pooling", "adaptive_average")
    assert message is not None
    for part in (
        "model.pooling=adaptive_average",
        "adaptive_avg | fixed_avg | fixed_max",
        "Did you mean adaptive_avg?",
    ):
        assert part in message


def test_nearest_finds_the_last_part_of_a_key():
    assert "loss.label_smoothing" in nearest("label_smooting", KNOBS | knobs_of_options())
    assert nearest("zzz", KNOBS) == ""


@pytest.mark.parametrize(("group", "option"), CHOICES)
def test_every_option_composes_is_valid_and_declared(group, option):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [f"{group}=[acc,{option}]" if group == "metrics" else f"{group}={option}"])
    assert problems(config) == []
    known = known_knobs(config)
    flat = {
        key for key in flatten(config) if not key.endswith("_target_") and flatten(config)[key] is not None
    }
    assert flat - known.keys() == set()


@pytest.mark.parametrize("model", ["baseline", "custom", "enhanced", "mnist"])
@pytest.mark.parametrize("more", [["optimizer=sgd", "scheduler=step", "loss=focal"], ["scheduler=onecycle"]])
def test_what_can_be_chosen_is_described_and_a_number_has_a_range(configure, model, more):
    config = configure(f"model={model}", *more)
    known = known_knobs(config)
    for key in flatten(config).keys() & known.keys():
        if not key.startswith(("callbacks.", "logger.")):
            assert known[key].meaning, key
            assert known[key].interval != EVERYTHING or "float" not in known[key].kind, key


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


@pytest.mark.parametrize(
    ("key", "target", "reason"),
    [
        ("model", "lightning.pytorch.loggers.CometLogger", "it is no Module"),
        ("model", "lightning_modules.schedule.cosine", "it is no Module"),
        ("model", "lightning_modules.callbacks.Figures", "it is no Module"),
        ("scheduler", "torch.nn.Sequential", "it is no LRScheduler"),
        ("scheduler", "lightning_modules.networks.mnist.mnist", "it is no LRScheduler"),
        ("model.dropout", "lightning.pytorch.loggers.CometLogger", "only logger holds those"),
        ("optimizer.lr", "lightning.pytorch.loggers.MLFlowLogger", "only logger holds those"),
    ],
)
def test_a_component_is_of_its_kind(key, target, reason):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train")
    OmegaConf.update(config, key, {"_target_": target}, force_add=True, merge="." not in key)
    assert any(f"{key}._target_={target}: {reason}" in line for line in problems(config))
