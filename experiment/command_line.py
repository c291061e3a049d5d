"""What a command line says, checked against the schema before anything heavy is imported."""

import argparse
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiment import plugins
from experiment.config import files_of_keys, override_lists
from experiment.errors import UserError
from experiment.help import help_text
from experiment.knob import Knob, nearest, text
from experiment.run import FOLDER_VARIABLE
from experiment.schema import (
    COMPONENTS,
    KNOBS,
    can_be_left_out,
    faults,
    flatten,
    known_knobs,
    unknown,
)
from experiment.schema import CONFIG_DIR as CONFIG_DIR

# Hydra 1.4 wants neither version_base, without which 1.3 warns, nor plugins that lie beside train.py
for message in ("The version_base parameter", "Hydra could not discover plugins in an editable"):
    warnings.filterwarnings("ignore", message=message)
warnings.filterwarnings("error", message="provider=hydra.searchpath")  # a folder that is not there


class _Flags(argparse.ArgumentParser):
    """Hydra's flags, so that what is no flag can be told in our words."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        for flags in ("-h --help", "--hydra-help", "--version", "-m --multirun", "-r --run", "--resolve"):
            self.add_argument(*flags.split(), action="store_true")
        self.add_argument("-sc", "--shell-completion", action="store_true")
        shown = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
        self.add_argument("-i", "--info", nargs="?", const="all", choices=shown)
        self.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
        for flag in ("package", "config-path", "config-name", "config-dir"):
            self.add_argument(f"-{''.join(word[0] for word in flag.split('-'))}", f"--{flag}")
        self.add_argument("--experimental-rerun")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print and exit with."""
        raise UserError(message)


def check(argv: list[str]) -> list[str]:
    """Check a command line of ``train.py``; print ``--help`` and exit where it is asked for.

    Returns:
        The command line as Hydra takes it: flags first, ``++`` before a key that exists but has no value yet.

    Raises:
        UserError: naming every unknown option, unknown key and value out of range, with what is allowed.
    """
    flags, given = _Flags().parse_known_args(argv)
    if flags.experimental_rerun:
        raise UserError("--experimental-rerun: resume=FOLDER goes on with a run, from its own configuration")
    if sum(map(bool, (flags.run, flags.multirun, flags.cfg, flags.info, flags.shell_completion))) > 1:
        raise UserError("give one of --run, --multirun, --cfg, --info and --shell-completion")
    if flags.hydra_help or flags.shell_completion or flags.info or flags.version:
        return argv  # Hydra answers these
    if flags.config_path or flags.config_name:
        raise UserError("the configurations are in conf/; --config-dir FOLDER adds a folder of yours")
    if flags.config_dir and not Path(flags.config_dir).is_dir():
        raise UserError(f"--config-dir {flags.config_dir}: there is no such folder")
    folders = [Path(folder).resolve() for folder in (flags.config_dir,) if folder]
    path = [f"hydra.searchpath=[file://{folder}]" for folder in folders]
    words = [word for word in given if word.partition("=")[0] == "help"]
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            plugins.replace_options()
            overrides = _parse([word for word in given if word not in words])
            if flags.help or words:
                groups = [word.partition("=")[2] for word in words if "=" in word]
                composed = _compose_and_check(overrides, path)
                print(help_text(composed, groups, is_full="--help" in argv))
                raise SystemExit(0)
            given_to_hydra = _check(overrides, path, flags.multirun or "hydra.mode=MULTIRUN" in given)
    except (HydraException, OmegaConfBaseException, UserWarning) as mistake:
        raise UserError(_reason(mistake)) from mistake
    return [*(argument for argument in argv if argument not in given), *given_to_hydra]


def _reason(mistake: Exception) -> str:
    """What Hydra found wrong with the files of a configuration, in our words where there are shorter ones."""
    if isinstance(mistake, MissingConfigException) and mistake.options:
        group, _, option = str(mistake.missing_cfg_file).rpartition("/")
        meant, there = nearest(option, mistake.options), ", ".join(mistake.options)
        return f"a list of defaults names {group}={option}: no such option.{meant} Options: {there}"
    if found := re.match(r"Could not override '(hydra\..+?)'", str(mistake)):
        key = found[1]
        meant = nearest(key, plugins.HYDRA_KNOBS.keys() - {key})
        return f"{key}: no such key.{meant} +{key}=… adds one that its package knows"
    message = " ".join(str(mistake).partition("\nSee ")[0].split())
    if message.startswith("Error merging override"):
        return f"{message.rpartition(' ')[2]}: {str(mistake.__cause__).splitlines()[0]}"
    words = "(?:Could not override '/?|.* No earlier Group Default for ')"  # of Hydra 1.3 and 1.4
    if found := re.match(rf"In '(.+?)': {words}([^'@]+)(@?)", message):
        file, group, is_nested = found.groups()
        meant = nearest(group, [*COMPONENTS, "trainer", "hydra/launcher", "hydra/sweeper"])
        if is_nested:
            return f"{file}.yaml: its first line must be: # @package _global_"
        return f"{file}.yaml: override {group}: there is no such group.{meant}"
    return message


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
    folder = ["--config-dir", str(config_dir)] if config_dir else []
    taken = check([*folder, *overrides])[len(folder) :]
    path = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [*path, *taken], return_hydra_config=True)


CHANGEABLE = ("trainer.max_epochs", "data.root", "trainer.accelerator")
"""What a resume may change: how long the run is, and where it runs."""


def _parse(given: Sequence[str]) -> list[Override]:
    """The overrides of a command line.

    Raises:
        UserError: for anything that is none.
    """
    names = [*COMPONENTS, "experiment", *KNOBS]
    for word, after in pairwise([*given, ""]):
        key, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-"):
            meant = nearest(key, names, f"={value or after}")
            raise UserError(f"{word}: there is no such flag; a key is set with key=value.{meant}")
        if (not equals and not word.startswith("~")) or word.startswith("="):
            raise UserError(f"{word}: expected key=value.{nearest(word, names, '=…')} -h says more")
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = []
    for word in given:
        key, _, path = word.partition("=")
        # a path of any letters: Hydra's grammar would take = and , for its own
        is_odd_path = key == "resume" and re.search(r"^[^'\"]*[=,()\[\]{}:][^'\"]*$", path)
        try:
            parsed = parser.parse_overrides([f"resume='{path}'" if is_odd_path else word])
            overrides += parsed
            [*map(_texts, parsed)]  # some sweeps that cannot be are found out here only
        except (HydraException, OmegaConfBaseException) as mistake:
            said = [line for line in str(mistake).splitlines() if not line.startswith(("Error", "See "))]
            reason = said[0] if said else str(mistake.__cause__ or "no value")
            hint = "Special characters are quoted twice: \"name='a, b'\""
            raise UserError(f"{word}: cannot be read: {reason}. {hint}") from mistake
    return overrides


def _check(overrides: list[Override], path: list[str], multirun: bool) -> list[str]:
    """Check overrides and the configurations that they compose; returns the overrides as Hydra takes them."""
    lacking = ((_line(o), plugins.missing(o.key_or_group, str(o.value()))) for o in overrides)
    _raise([f"{line}: {reason}" for line, reason in lacking if reason])
    _raise(list(_problems_of_mode(overrides, multirun)))
    composed = _compose_and_check(overrides, path)
    params, cases = composed.hydra.sweeper.get("params") or {}, composed.sweep.cases
    experiment = next(
        (_line(override) for override in overrides if override.key_or_group == "experiment"), ""
    )
    if (params or cases) and not multirun:
        raise UserError(f"{experiment} is a sweep: add -m")
    if (params or cases) and "," in experiment:
        raise UserError(f"{experiment}: each is a sweep of its own; start one after the other")
    given = [*map(_line, overrides)]
    for expanded in override_lists(params, cases, given) if params or cases else []:
        _compose_and_check(_parse(expanded), path)
    groups = (*COMPONENTS, "trainer", "experiment")
    new = known_knobs(composed).keys() - files_of_keys(composed).keys()
    return [
        line.lstrip("+")
        if o.key_or_group in groups
        else f"++{line}"
        if o.key_or_group in new and not line.startswith("+")
        else line
        for o, line in zip(overrides, given, strict=True)
    ]


def _problems_of_mode(overrides: list[Override], multirun: bool) -> Iterator[str]:
    """What only a single run, only a sweep or only a new run can be given."""
    keys = [override.key_or_group for override in overrides]
    is_dry = any(_line(override) == "sweep.dry_run=true" for override in overrides)
    for key, override in zip(keys, overrides, strict=True):
        is_hydras = key.startswith("hydra.")  # Lightning sets some for the processes that it starts
        if re.match(r"hydra\.(run|sweep|job|output_subdir)\b", key) and FOLDER_VARIABLE not in os.environ:
            yield f"{_line(override)}: output_dir=, name= and, of a sweep, sweep.name= say where runs go"
        if "resume" in keys and key not in ("resume", *CHANGEABLE) and not is_hydras:
            yield (
                f"{_line(override)}: resume= takes everything from the run's folder; leave this out. "
                f"Only {', '.join(CHANGEABLE)} may change"
            )
        if is_dry and key == "hydra/sweeper" and override.value() not in ("folder", "halving"):
            yield f"sweep.dry_run=true: {override.value()} draws its jobs only while it runs; leave this out"
        if multirun and key == "resume":
            yield "resume= continues one run: leave -m out"
        if multirun and key == "name":
            yield f"{_line(override)}: names a single run; sweep.name= names a sweep"
        if not multirun and re.match(r"sweep\.|hydra[./](sweeper|launcher)", key):
            yield f"{_line(override)}: is about a sweep: add -m"
        elif not multirun and override.is_sweep_override():
            yield f"{_line(override)}: several values are a sweep: add -m"


def _compose_and_check(overrides: list[Override], path: list[str]) -> DictConfig:
    """Compose with the first value of each override and check the whole; with groups, for each option."""
    loader = GlobalHydra.instance().config_loader()
    base = [*path, *(_line(o) for o in overrides if o.key_or_group.startswith("hydra."))]
    groups, values, deleted, wrong = list[list[str]](), list[Override](), list[Override](), list[str]()
    for override in overrides:
        key = override.key_or_group
        options = [] if "." in key else loader.get_group_options(key, config_name="train", overrides=base)
        if override.is_delete():
            deleted.append(override)
        elif options and not any(isinstance(value, dict) for value in _values(override)):
            if not (texts := _texts(override)):
                wrong.append(f"{_line(override)}: no such option. Options: {', '.join(options)}")
            groups.append(texts)
            if key != "metrics" and any(isinstance(value, list) for value in _values(override)):
                wrong.append(f"{_line(override)}: takes one option; several are a sweep: -m {key}=a,b")
            for value in (o for v in _values(override) for o in (v if isinstance(v, list) else [v])):
                if value not in options:
                    meant = nearest(str(value), options)
                    wrong.append(f"{key}={text(value)}: no such option.{meant} Options: {', '.join(options)}")
        elif not key.startswith("hydra."):
            values.append(override)
    _raise(wrong)
    first = [f"++{texts[0]}" for override in values if (texts := _texts(override))]
    for number in range(max(map(len, groups), default=1)):
        chosen = [texts[number % len(texts)] for texts in groups]
        composed = compose("train", [*base, *chosen, *first], return_hydra_config=True)
        _raise(list(_problems(composed, values, deleted)))
    return composed


def _problems(composed: DictConfig, values: list[Override], deleted: list[Override]) -> Iterator[str]:
    """What is wrong with a composed configuration and with the other values that it is to be given."""
    known, files = known_knobs(composed), files_of_keys(composed)
    given = {override.key_or_group: _line(override) for override in values}
    without = tuple(f"{override.key_or_group}." for override in deleted)
    for key, line in faults(composed, is_composed=True):
        if f"{key}.".startswith(without) and line == unknown(key, known):
            continue
        cause = next((said for name, said in given.items() if key == name or key.startswith(f"{name}.")), "")
        if cause and line == unknown(key, known):
            suffix = f"={cause.partition('=')[2]}"
            line = cause + unknown(key, [*known, "experiment"], suffix).removeprefix(key)
        elif not cause and (file := _culprit(key, line, files)):
            line = f"{file}: {line}"
            if key.startswith("experiment."):
                line += " Its first line must be: # @package _global_"
        group, _, name = key.partition(".")
        if "expected null" in line and (CONFIG_DIR / group / f"{name}.yaml").is_file():
            line += f" {group}={name} switches it on"
        yield line
    yield from plugins.problems_of_plugins(composed.hydra)
    for override in values:
        knob = known.get(override.key_or_group)
        wrong = (knob.problem(override.key_or_group, v) for v in _values(override)[1:]) if knob else ()
        yield from filter(None, wrong)
    for override in deleted:
        key = override.key_or_group
        if not any(f"{there}.".startswith(f"{key}.") for there in flatten(composed)):
            yield f"{_line(override)}: no such key.{nearest(key, known)}"
        elif not can_be_left_out(key, composed):
            yield f"{_line(override)}: a run needs it"


def _culprit(key: str, line: str, files: dict[str, Path]) -> Path | None:
    """The file that sets a key, or where something is missing, the one of the user's that should."""
    if " is missing" not in line and key in files:
        return files[key]
    own = {name: file for name, file in files.items() if not file.is_relative_to(CONFIG_DIR)}
    return own.get(key.partition(".")[0]) or next(iter(own.values()), None)


def _raise(wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError("\n       ".join(dict.fromkeys(wrong)))


def _line(override: Override) -> str:
    return override.input_line or ""


def _values(override: Override) -> list[Any]:
    """The values that an override gives, several for a sweep; an empty list where a sampler draws them."""
    if override.is_discrete_sweep():
        return [getattr(value, "text", value) for value in override.sweep_iterator()]
    return [] if override.is_sweep_override() or override.is_delete() else [override.value()]


def _texts(override: Override) -> list[str]:
    """``key=value`` for each of the values."""
    key = override.get_key_element().lstrip("+")
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [] if override.is_sweep_override() else [_line(override).lstrip("+")]


def assignments(argv: list[str], knobs: dict[str, Knob], usage: str) -> dict[str, Any]:
    """``key=value`` arguments of the commands that read a run rather than compose one.

    A knob that is not ``optional`` must be given.

    Raises:
        UserError: naming an unknown or missing key, or a value that is not allowed.
    """
    described = {
        k: knob.meaning + f" ({' | '.join(knob.choices)})" * bool(knob.choices) for k, knob in knobs.items()
    }
    if {"-h", "--help", "help"} & set(argv):
        lines = [f"  {key:<12}{described[key]}" for key in knobs]
        print("\n".join([usage, "", *lines]))
        raise SystemExit(0)
    given: dict[str, Any] = dict.fromkeys(knobs)
    for argument in argv:
        key, equals, value = argument.partition("=")
        if not equals:
            meant = f" Did you mean run={argument}?" if "run" in knobs and Path(argument).exists() else ""
            raise UserError(f"{argument}: expected key=value.{meant} {usage}")
        if key in knobs and not value.strip():
            raise UserError(f"{argument}: the value is missing: {knobs[key].meaning}. {usage}")
        if key in knobs and given[key] is not None:
            raise UserError(f"{argument}: {key}= is given twice. {usage}")
        if key not in knobs:
            raise UserError(f"{argument}: no such key.{nearest(key, knobs)} Keys: {', '.join(knobs)}")
        given[key] = value
    for key, knob in knobs.items():
        if given[key] is None and not knob.optional:
            raise UserError(f"{key}= is missing: {described[key]}. {usage}")
        if given[key] is None:
            continue
        with suppress(ValueError):
            given[key] = {"int": int, "float": float}.get(knob.kind, str)(given[key])
        if wrong := replace(knob, optional=False).problem(key, given[key]):
            raise UserError(f"{wrong} {usage}")
    return given
