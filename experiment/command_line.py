"""What a command line says, checked against the schema before anything heavy is imported."""

import itertools
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiment.entry_point import ROOT, invocation
from experiment.errors import UserError
from experiment.schema import KNOBS, OPEN_NODES, Knob, flatten, nearest, problem, problems

# an installed package holds conf/, in a checkout it lies beside experiment/
CONFIG_DIR = next(path for path in (ROOT / "experiment" / "conf", ROOT / "conf") if path.is_dir())
GROUPS = (
    "model", "data", "optimizer", "scheduler", "loss", "metrics", "trainer", "callbacks", "logger",
    "experiment",
)  # fmt: skip


def check(argv: list[str]) -> None:
    """Check a command line of ``train.py``; print ``--help`` and exit where it is asked for.

    Raises:
        UserError: naming every unknown option, unknown key and value out of range, with what is allowed.
    """
    arguments = get_args_parser().parse_args(argv)
    if arguments.hydra_help or arguments.shell_completion or arguments.info:
        return  # Hydra answers these
    multirun = arguments.multirun or "hydra.mode=MULTIRUN" in argv
    path = (
        [f"hydra.searchpath=[file://{Path(arguments.config_dir).resolve()}]"] if arguments.config_dir else []
    )
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            _replace_options_of_plugins()
            loader = GlobalHydra.instance().config_loader()
            overrides = OverridesParser.create(loader).parse_overrides(arguments.overrides)
            wrong = _check_overrides(overrides, loader, multirun, path)
            if wrong:
                raise UserError("\n       ".join(dict.fromkeys(wrong)))
            if arguments.help:
                print(_help(compose("train", path), loader))
                raise SystemExit(0)
    except (HydraException, OmegaConfBaseException) as mistake:
        raise UserError(str(mistake)) from mistake


def compose_run(overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """Compose what ``train.py`` would for a single run, with its ``hydra`` node.

    Args:
        overrides: ``group=option`` and ``knob=value``.
        config_dir: a folder of configurations of the user's own.

    Raises:
        UserError: as :func:`check`.
    """
    if flags := [word for word in overrides if word.startswith("-")]:
        raise UserError(f"{' '.join(flags)}: only group=option and knob=value are taken here")
    check([*overrides, *(["--config-dir", str(config_dir)] if config_dir else [])])
    path = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [*path, *overrides], return_hydra_config=True)


def _replace_options_of_plugins() -> None:
    """Let ``conf/hydra/`` replace what plugins register under the same names; Hydra would mix the two."""
    groups = ConfigStore.instance().repo["hydra"]
    for path in CONFIG_DIR.glob("hydra/*/*.yaml"):
        groups[path.parent.name].pop(path.name, None)


def _check_overrides(
    overrides: list[Override], loader: ConfigLoader, multirun: bool, path: list[str]
) -> list[str]:
    """Every mistake in ``overrides``, one line each."""
    wrong = [line for override in overrides if (line := _missing_plugin(override))]
    if wrong:
        return wrong
    if any(override.key_or_group == "resume" for override in overrides):
        wrong += [
            f"{override.input_line}: resume= takes everything from the run's folder; leave this out"
            for override in overrides
            if override.key_or_group != "resume"
        ]
        wrong += ["resume= continues one run: leave -m out"] if multirun else []
    if not multirun:
        of_sweep = [override for override in overrides if override.key_or_group.startswith("sweep.")]
        wrong += [f"{override.input_line}: is about a sweep: add -m" for override in of_sweep]
    groups: list[tuple[str, list[Any]]] = []
    values: list[tuple[Override, list[Any]]] = []
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra."):
            continue  # Hydra's own keys are checked by Hydra
        if override.is_sweep_override() and not multirun:
            wrong.append(f"{override.input_line}: several values are a sweep: add -m")
            continue
        options = loader.get_group_options(key, config_name="train", overrides=path)
        chosen = _values(override)
        named = [name for value in chosen for name in (value if isinstance(value, list) else [value])]
        if options and not override.is_delete() and all(v is None or isinstance(v, str) for v in named):
            wrong += [
                f"{key}={value}: no such option.{nearest(str(value), options)} Options: {', '.join(options)}"
                for value in named
                if value not in options
            ]
            if key != "metrics" and any(isinstance(value, list) for value in chosen):
                wrong.append(f"{override.input_line}: takes one option; several are a sweep: -m {key}=a,b")
            groups.append((key, chosen))
        else:
            values.append((override, chosen))
    if wrong:
        return wrong
    # which keys exist depends on the options chosen: look at each combination that the sweep will meet
    for combination in itertools.product(*(chosen for _, chosen in groups)):
        chosen_groups = [
            f"{key}={_text(option)}" for (key, _), option in zip(groups, combination, strict=True)
        ]
        known = flatten(compose("train", [*path, *chosen_groups]))
        for override, given in values:
            wrong += _check_value(override, given, known)
        if not wrong:
            first = [line for override, _ in values if (line := _first(override))]
            composed = compose("train", [*path, *chosen_groups, *first], return_hydra_config=True)
            if not multirun and (composed.sweep.cases or composed.hydra.sweeper.get("params")):
                experiment = composed.hydra.runtime.choices.experiment
                wrong.append(f"experiment={experiment} is a sweep: add -m")
            wrong += problems(
                OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            )
    return wrong


def _missing_plugin(override: Override) -> str:
    """What to install for a launcher or sweeper of ``conf/hydra/`` that is not there; empty if it is."""
    option = CONFIG_DIR / override.key_or_group / f"{override.value()}.yaml"
    if not override.key_or_group.startswith("hydra/") or not option.is_file():
        return ""
    target: str = OmegaConf.select(OmegaConf.load(option), "_target_")
    package = ".".join(target.split(".")[:2])
    extra = "hpo" if override.key_or_group == "hydra/sweeper" else "cluster"
    is_there = find_spec(package) is not None
    return "" if is_there else f"{override.input_line} is not installed: pip install -e '.[{extra}]'"


def _values(override: Override) -> list[Any]:
    """The values that an override gives, several for a sweep; an empty list where a sampler draws them."""
    if override.is_discrete_sweep():
        return list(override.sweep_iterator())
    return [] if override.is_sweep_override() else [override.value()]


def _first(override: Override) -> str:
    """The override with the first of its values, as Hydra reads it; empty where a sampler draws them."""
    if not override.is_sweep_override():
        return override.input_line or ""
    if override.is_discrete_sweep():
        return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
    return ""


def _text(value: Any) -> str:
    """A value as one would type it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(", ", ",")


def _check_value(override: Override, given: Iterable[Any], known: dict[str, Any]) -> list[str]:
    key = override.key_or_group
    is_node = any(name.startswith(f"{key}.") for name in known)
    if key not in known and not is_node and not _belongs_to_open_node(key, known):
        group = key.partition(".")[0]
        if key in KNOBS:
            inside = ", ".join(name for name in known if name.startswith(f"{group}."))
            return [f"{override.input_line}: the chosen {group} has no such key. It has: {inside}."]
        help_lists = f"{invocation('train')} --help lists all."
        return [f"{override.input_line}: no such key.{nearest(key, known)} {help_lists}"]
    if override.is_delete():
        return []
    wrong = []
    for value in given:
        if isinstance(value, dict):
            wrong += [line for k, v in flatten(value, f"{key}.").items() if (line := problem(k, v))]
        elif is_node and value is not None:
            wrong.append(f"{override.input_line}: {key} is a group of keys, not a value")
        elif not (isinstance(value, str) and "${" in value):
            line = problem(key, getattr(value, "text", value), known.get(key))
            wrong += [line] if line else []
    return wrong


def _belongs_to_open_node(key: str, known: dict[str, Any]) -> bool:
    """A new entry of ``callbacks`` or ``logger``, but not a new key in an entry that is there."""
    node, _, rest = key.partition(".")
    entry = f"{node}.{rest.partition('.')[0]}"
    return node in OPEN_NODES and not any(name == entry or name.startswith(f"{entry}.") for name in known)


def _help(config: DictConfig, loader: ConfigLoader) -> str:
    """The text of ``--help``: groups with their options, knobs with value, range and meaning."""
    now = flatten(config)
    train = invocation("train")
    lines = [f"{train} [-m] [group=option ...] [knob=value ...]", "", "Groups"]
    for group in GROUPS:
        lines.append(f"  {group:<12}{' | '.join(loader.get_group_options(group))}")
    lines += ["", "Knobs, with the value of the default run; - = only with another option of its group"]
    for key, knob in KNOBS.items():
        value = _text(now[key]) if key in now else "-"
        lines += [f"  {key + '=' + value:<46}{knob.allowed}", f"      {knob.meaning}"]
    lines += [
        "",
        "Examples",
        f"  {train} model=enhanced data=cifar10",
        f"  {train} model=enhanced optimizer=sgd scheduler=step loss.label_smoothing=0",
        f"  {train} -m model.dropout=0,0.3,0.5 seed=0,1,2",
        f"  {train} resume=outputs/NAME",
        "--cfg job prints the composed configuration, --hydra-help Hydra's own options.",
    ]
    return "\n".join(lines)


def assignments(argv: list[str], knobs: dict[str, Knob], usage: str) -> dict[str, Any]:
    """``key=value`` arguments of the commands that read a run rather than compose one.

    A value stays a string; a knob that is not ``optional`` must be given.

    Raises:
        UserError: naming an unknown or missing key, or a value that is not allowed.
    """
    if {"-h", "--help"} & set(argv):
        lines = [f"  {key:<12}{knob.meaning} ({knob.allowed})" for key, knob in knobs.items()]
        print("\n".join([usage, "", *lines]))
        raise SystemExit(0)
    given: dict[str, Any] = dict.fromkeys(knobs)
    for argument in argv:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument}: expected key=value. {usage}")
        if key not in knobs:
            raise UserError(f"{argument}: no such key.{nearest(key, knobs)} Keys: {', '.join(knobs)}")
        given[key] = value
    for key, knob in knobs.items():
        if not knob.accepts(given[key]):
            raise UserError(f"{key}={given[key] or ''}: {knob.meaning}: {knob.allowed}. {usage}")
    return given
