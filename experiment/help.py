"""What ``--help`` prints: the groups with their options, the knobs with their values, ranges and meanings."""

from collections.abc import Sequence
from textwrap import wrap

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from experiment.config import option_file
from experiment.entry_point import invocation
from experiment.errors import UserError
from experiment.knob import Knob, nearest, text
from experiment.schema import COMPONENTS, flatten, knobs_of_options, known_knobs

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
    loader = GlobalHydra.instance().config_loader()
    train = invocation("train")
    lines = [f"{train} [-m] [group=option ...] [knob=value ...]", "", "Groups (* is chosen)"]
    for group in asked or GROUPS:
        choice = composed.hydra.runtime.choices.get(group)
        chosen = [choice] if isinstance(choice, str) else list(choice or [])
        options = {option: option + "*" * (option in chosen) for option in loader.get_group_options(group)}
        phrases = {option: _phrase(composed, group, option) for option in options}
        if asked or (is_full and group in ("model", "data", "experiment")):
            lines += [f"  {group}", *(f"    {mark:<18}{phrases[option]}" for option, mark in options.items())]
        else:
            lines.append(f"  {group:<12}{' | '.join(options.values())}")
    if asked or is_full:
        knobs, values = known_knobs(composed), flatten(composed)
        lines += ["", "Knobs with their values; - = only with another option of its group"]
        listed = knobs_of_options() | {key: knob for key, knob in knobs.items() if key in values}
        for key, knob in sorted(listed.items(), key=_place):
            if not asked or key.partition(".")[0] in asked:
                lines.append(
                    f"  {key + '=' + (text(values[key]) if key in values else '-'):<46}{knob.allowed}"
                )
                lines += [f"      {knob.meaning}"] if knob.meaning else []
        more = [key for key in knobs if key not in listed and (not asked or key.partition(".")[0] in asked)]
        lines += (
            ["", *wrap(f"Further arguments of the chosen classes: {', '.join(more)}", 100)] if more else []
        )
    return "\n".join([*lines, EXAMPLES.format(train=train)])


def _place(item: tuple[str, Knob]) -> int:
    """Where in the list a knob stands: keys of no group first, then the groups in their order."""
    group = item[0].partition(".")[0]
    return GROUPS.index(group) if group in GROUPS else len(GROUPS) if "." in item[0] else -1


def _phrase(composed: DictConfig, group: str, option: str) -> str:
    """The first comment in an option's file that is neither Hydra's nor a command."""
    file = option_file(composed, group, option)
    comments = (
        [line.strip("# ") for line in file.read_text().splitlines() if line.startswith("#")] if file else []
    )
    said = next((line for line in comments if not line.startswith(("@package", "python "))), "")
    return said.partition(". ")[0].rstrip(".")
