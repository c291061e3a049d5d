"""What ``--help`` prints: the groups with their options, the knobs with their values, ranges and meanings."""

from collections.abc import Sequence
from textwrap import wrap

from omegaconf import DictConfig, OmegaConf

from experiment.config import option_file, options
from experiment.entry_point import invocation
from experiment.errors import UserError
from experiment.knob import Knob, nearest, text
from experiment.schema import COMPONENTS, KNOBS, flatten, knobs_of_options, known_knobs

GROUPS = (*COMPONENTS, "trainer", "experiment")
EXAMPLES = """
Examples
  {train} model=enhanced data=cifar10
  {train} model=enhanced optimizer=sgd scheduler=step loss.label_smoothing=0
  {train} -m model.dropout=0,0.3,0.5 seed=0,1,2
  {train} resume=outputs/NAME
--help lists every knob, help=model those of one group, --help model=baseline those with another model;
--cfg job prints the composed configuration, --hydra-help Hydra's own options."""


def help_text(composed: DictConfig, asked: Sequence[str] = (), *, is_full: bool) -> str:
    """The text of ``-h`` (short), ``--help`` (``is_full``) and ``help=GROUP``.

    Args:
        composed: with its ``hydra`` node; its options are marked, its values shown.
        asked: groups to which the text is limited; empty for all.
        is_full: list all knobs, and a phrase for each option.

    Raises:
        UserError: for a group that there is not.
    """
    for group in asked:
        if group not in GROUPS:
            raise UserError(
                f"help={group}: no such group.{nearest(group, GROUPS)} Groups: {', '.join(GROUPS)}"
            )
    train = invocation("train")
    lines = [f"{train} [-m] [group=option ...] [knob=value ...]", "", "Groups (* is chosen)"]
    for group in asked or GROUPS:
        choice = composed.hydra.runtime.choices.get(group)
        chosen = (
            [choice] if isinstance(choice, str) else list(composed.get(group) or [])
        )  # of metrics several
        marked = {option: option + "*" * (option in chosen) for option in options(composed, group)}
        if asked or (is_full and group in ("model", "data", "experiment")):
            lines.append(f"  {group}")
            width = max(map(len, marked.values()), default=0) + 6
            for option, mark in marked.items():
                lines += _wrapped(f"    {mark}".ljust(width) + _phrase(composed, group, option), width)
        else:
            lines.append(f"  {group:<12}{' | '.join(marked.values())}")
    if asked or is_full:
        knobs, values = known_knobs(composed), flatten(composed)
        lines += ["", "Knobs with their values; - = only with another option of its group"]
        foreign = [key for key in knobs if key not in values and _is_foreign(key, composed)]
        for key, knob in sorted((knobs_of_options() | knobs).items(), key=_place):
            if key not in foreign and (not asked or key.partition(".")[0] in asked):
                value = text(values[key]) if key in values else knob.default if key in knobs else "-"
                lines.append(f"  {key + '=' + value:<46}{knob.allowed}")
                lines += _wrapped("      " + knob.meaning, 6)
        more = ", ".join(key for key in foreign if not asked or key.partition(".")[0] in asked)
        lines += ["", *wrap(f"Further arguments of classes of torch and Lightning: {more}", 100)] * bool(more)
    return "\n".join([*lines, EXAMPLES.format(train=train)])


def _wrapped(line: str, indent: int) -> list[str]:
    return wrap(line, 100, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _is_foreign(key: str, composed: DictConfig) -> bool:
    """Whether a knob is an argument of a class that this project only uses."""
    if key in KNOBS:
        return False
    target = OmegaConf.select(composed, f"{key.rpartition('.')[0]}._target_") or ""
    return str(target).startswith(("torch.", "lightning."))


def _place(item: tuple[str, Knob]) -> int:
    """Where in the list a knob stands: keys of no group first, then the groups in their order."""
    group = item[0].partition(".")[0]
    return GROUPS.index(group) if group in GROUPS else len(GROUPS) if "." in item[0] else -1


def _phrase(composed: DictConfig, group: str, option: str) -> str:
    """The first sentence of the comments in an option's file, but for Hydra's and commands."""
    file = option_file(composed, group, option)
    comments = [line[2:] for line in file.read_text().splitlines() if line.startswith("# ")] if file else []
    said = " ".join(line for line in comments if not line.startswith(("@package", "python ")))
    return said.partition(". ")[0].rstrip(".")
