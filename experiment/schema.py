"""What a configuration may hold, and what is wrong with one.

A component (a model, a loss, a callback, …) declares its own knobs by the signature of the function or class
that its ``_target_`` names; :data:`KNOBS` holds those that belong to none. ``conf/`` gives the values,
``--help`` prints both, and :func:`faults` holds a whole configuration against them before torch is imported.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PureWindowsPath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiment.allowed import refusal
from experiment.entry_point import ROOT, trusted_packages
from experiment.errors import UserError
from experiment.instantiate import chosen_metrics
from experiment.knob import Knob as Knob
from experiment.knob import likeness, text
from experiment.knob import nearest as nearest
from experiment.metrics import TABLE, Metric
from experiment.signature import Signature, ancestors, decorated, definition, described, signature

# an installed package holds conf/, in a checkout it lies beside experiment/
CONFIG_DIR = next(path for path in (ROOT / "experiment" / "conf", ROOT / "conf") if path.is_dir())


@dataclass(frozen=True)
class Component:
    """A node of the configuration from which one object is built, or with ``has_entries`` one of each entry.

    Args:
        given: number of leading arguments that the project gives.
        named: arguments that it gives by name.
        own: keys beside the target's, of :data:`KNOBS`, of which the project makes use itself.
        has_entries: whether the node is a dictionary of components or nulls.
        base: the class from which those derive that can stand here.
        functions: module of this project whose functions can, too.
    """

    given: int = 0
    named: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    has_entries: bool = False
    base: str = ""
    functions: str = ""


COMPONENTS = {
    "model": Component(
        given=3, own=("engine",), base="torch.nn.Module", functions="lightning_modules.networks"
    ),
    "data": Component(named=("seed",), base="lightning.pytorch.LightningDataModule"),
    "optimizer": Component(
        given=1, own=("head_lr", "bias_lr", "no_decay_on_norms_and_biases"), base="torch.optim.Optimizer"
    ),
    "scheduler": Component(
        given=2, base="torch.optim.lr_scheduler.LRScheduler", functions="lightning_modules.schedule"
    ),
    "loss": Component(own=("keep_hardest",), base="torch.nn.Module"),
    "metrics": Component(given=2, has_entries=True),
    "callbacks": Component(has_entries=True, base="lightning.pytorch.callbacks.Callback"),
    "logger": Component(
        named=("save_dir", "purge_step", "run_name", "tracking_uri"),
        has_entries=True,
        base="lightning.pytorch.loggers.Logger",
    ),
}
NESTED = Component()


def positive(kind: str, meaning: str, **options: Any) -> Knob:
    """A knob of positive numbers."""
    return Knob(kind, meaning, "[1, inf)" if kind.endswith(("int", "int]")) else "(0, inf)", **options)


KNOBS: dict[str, Knob] = {
    "seed": Knob("int", "seed of weights, batch order, augmentation and dropout", "[0, 4294967295]"),
    "name": Knob("name", "name of the run folder; null = model-data-time", optional=True),
    "output_dir": Knob("path", "where run folders go"),
    "resume": Knob("path", "folder of a run to continue from its last checkpoint", optional=True),
    # sweep
    "sweep.name": Knob("name", "name of the sweep's folder; the same name again resumes it"),
    "sweep.dry_run": Knob(
        "bool", "say which jobs a sweep has, which are done and what time is left; no training"
    ),
    "sweep.cases": Knob(
        "list[str]",
        "overrides that go together ('model=mnist data=mnist'), each with all swept",
        optional=True,
    ),
    "sweep.until": Knob(
        "str",
        "null = all jobs; decided = seeds 0, 1, … until every claim is",
        choices=("decided",),
        optional=True,
    ),
    "sweep.max_seeds": Knob("int", "seeds after which sweep.until=decided ends in any case", "[3, inf)"),
    "sweep.claims": Knob("list[dict]", "what the sweep asks, for its report", optional=True),
    "sweep.fail_fast": Knob("bool", "start no further job after one has failed"),
    # model
    "model.engine": Knob(
        "str",
        "who computes the layers: torch, or custom_backend on NumPy, CuPy or what fits the device",
        choices=("torch", "auto", "numpy", "cupy"),
    ),
    # optimizer
    "optimizer.head_lr": Knob(
        "float", "learning rate of the last layer's weights; null = lr", "(0, inf)", optional=True
    ),
    "optimizer.bias_lr": Knob(
        "float", "learning rate of norms and biases; null = lr", "(0, inf)", optional=True
    ),
    "optimizer.no_decay_on_norms_and_biases": Knob("bool", "no weight decay for norms and biases"),
    # loss
    "loss.keep_hardest": Knob("float", "learn of each batch from this part, of the highest loss", "(0, 1]"),
    "loss.reduction": Knob("str", "over the images of a batch", choices=("mean", "sum")),
    # data
    "data.root": Knob("path", "folder of the data; default: $DATA_ROOT, else data/", optional=True),
    "data.cache": Knob(
        "path", "folder of decoded images; null = beside the images; default: $DATA_CACHE", optional=True
    ),
    # trainer
    "trainer.max_epochs": positive("int", "epochs to train"),
    "trainer.accelerator": Knob("str", "where to compute", choices=("auto", "cpu", "gpu")),
    "trainer.devices": positive("int", "devices on each node"),
    "trainer.num_nodes": positive("int", "nodes of a cluster"),
    "trainer.strategy": Knob("str", "how devices share the work", choices=("auto", "ddp")),
    "trainer.sync_batchnorm": Knob("bool", "normalise over the batches of all devices (GPUs only)"),
    "trainer.precision": Knob(
        "str",
        "floating-point format; auto = what this machine is fastest in",
        choices=("auto", "32-true", "64-true", "bf16-mixed", "16-mixed"),
    ),
    "trainer.compile": Knob("bool", "have torch compile the network: pays on GPUs, needs a C++ compiler"),
    "trainer.deterministic": Knob("bool", "only algorithms that give the same bits again on a GPU"),
    "trainer.gradient_clip_val": Knob("float", "largest gradient norm", "(0, inf)", optional=True),
    "trainer.accumulate_grad_batches": positive("int", "batches whose gradients make one step"),
    "trainer.limit_train_batches": Knob("batches", "an epoch trains on so many", optional=True),
    "trainer.limit_val_batches": Knob("batches", "a validation looks at so many", optional=True),
    "trainer.limit_test_batches": Knob("batches", "the test looks at so many", optional=True),
    "trainer.check_val_every_n_epoch": positive("int", "validate after every so many epochs"),
    "trainer.max_steps": positive("int", "end after so many steps, if not before", optional=True),
    "trainer.max_time": Knob(
        "duration", "end after this time, if not before; the schedule knows of the epochs only", optional=True
    ),
    "trainer.overfit_batches": Knob(
        "batches", "train on the same few in every epoch, to see the loss vanish", optional=True
    ),
    "trainer.fast_dev_run": Knob("bool", "one batch of everything: does it run at all?"),
    "trainer.profiler": Knob(
        "str", "where the time goes, in *-profile.txt", choices=("simple", "advanced"), optional=True
    ),
    # callbacks that compare epochs
    "callbacks.*.monitor": Knob("str", "what must improve: val_loss, or val_ with one of metrics=…"),
    "callbacks.*.mode": Knob(
        "str", "which way is better; null = that of the metric", choices=("max", "min"), optional=True
    ),
}


def flatten(config: DictConfig | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → plain value, interpolations resolved; lists are values, empty or null nodes too."""
    plain: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def tokens(setting: str) -> list[tuple[str, str]]:
    """Key and value of each part of a setting such as ``model=mnist seed=0``; a value may hold spaces."""
    parts = (part.partition("=") for part in re.split(r" (?=[\w./@~+-]+=)", setting))
    return [(key, value) for key, _, value in parts]


def known_knobs(config: DictConfig | Mapping[str, Any]) -> dict[str, Knob]:
    """Dotted key → knob for every key that a configuration with these components may have."""
    plain = plain_values(config) if isinstance(config, DictConfig) else config
    known = {key: knob for key, knob in KNOBS.items() if key.partition(".")[0] not in COMPONENTS}
    for key, node, component in _components(plain):
        if refusal(str(node.get("_target_"))) is None:
            known |= {f"{key}.{name}": knob for name, knob in _knobs(key, node, component).knobs.items()}
    return known


def faults(config: DictConfig, *, is_composed: bool = False) -> list[tuple[str, str]]:
    """Everything that is wrong with a configuration: the keys with one line each.

    Args:
        config: all of it, or a run's.
        is_composed: whether it was just composed: then nothing may be missing, as may be in an older run.
    """
    plain = plain_values(config)
    if found := list(_faults(plain, is_composed)):
        return found
    try:
        return [*_faults_between(plain), *_faults_of_monitors(plain, chosen_metrics(config))]
    except UserError as mistake:
        return [(re.split("[=:]", str(mistake))[0], str(mistake))]


def _faults(plain: Mapping[str, Any], is_composed: bool) -> Iterator[tuple[str, str]]:
    known = known_knobs(plain)
    for key, value in flatten({k: v for k, v in plain.items() if k not in COMPONENTS}).items():
        if key in known:
            line = known[key].problem(key, value)
        elif any(name.startswith(f"{key}.") for name in known):
            line = f"{key}={text(value)}: {key} is a group of keys, not a value"
        else:
            line = unknown(key, known)
        if line:
            yield key, line
    for key, node, component in _components(plain):
        yield from _faults_of_component(key, node, component, known)
    for group, component in COMPONENTS.items():
        if group not in plain:
            if is_composed:
                yield group, f"{group} is missing"
        elif not isinstance(plain[group], Mapping):
            yield group, f"{group}={text(plain[group])}: {group} is a group of keys, not a value"
        elif component.has_entries:
            for name, entry in plain[group].items():
                if entry is not None and not isinstance(entry, Mapping):
                    key = f"{group}.{name}"
                    yield key, f"{key}={text(entry)}: expected null or keys with a _target_."
    if is_composed:
        flat = flatten(plain)
        for key in KNOBS:
            if key not in flat and key.partition(".")[0] not in COMPONENTS and key != "sweep.claims":
                yield key, f"{key} is missing"


def own_keys(group: str, node: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of a component that its target takes, and those of which the project makes use itself."""
    plain: Any = OmegaConf.to_container(node, resolve=True)
    own = {key: plain.pop(key) for key in COMPONENTS[group].own if key in plain}
    return plain, own


def problems(config: DictConfig, *, is_composed: bool = False) -> list[str]:
    """Everything that is wrong with a configuration, one line each; see :func:`faults`."""
    return [line for _, line in faults(config, is_composed=is_composed)]


def unknown(key: str, known: Iterable[str], suffix: str = "") -> str:
    """The message for a key that there is not, with the nearest ones, each followed by ``suffix``."""
    known, group = list(known), key.partition(".")[0]
    there = sorted((name for name in known if name.startswith(f"{group}.")), key=lambda k: -likeness(key, k))
    inside = ", ".join(there)
    meant = nearest(key, [*COMPONENTS, *known], suffix)
    return f"{key}: no such key.{meant}" + f" {group} has: {inside}" * bool(inside and not meant)


def can_be_left_out(key: str, config: DictConfig) -> bool:
    """Whether a configuration works without a key that it has."""
    for name, node, component in _components(plain_values(config)):
        if key == name and component.has_entries:
            return True
        if key.startswith(f"{name}."):
            return (
                key.removeprefix(f"{name}.").partition(".")[0] not in _knobs(name, node, component).required
            )
    return False


def knobs_of_options() -> dict[str, Knob]:
    """Dotted key → knob for the keys that the options of ``conf/`` set, whatever is chosen."""
    known: dict[str, Knob] = {}
    for group, component in COMPONENTS.items():
        for path in () if component.has_entries else sorted(CONFIG_DIR.glob(f"{group}/*.yaml")):
            content: Any = OmegaConf.to_container(OmegaConf.load(path))
            node = content.get(group, content)
            keys = [f"{group}.{name}" for name in node]
            knobs = known_knobs({group: node}) | KNOBS
            known |= {key: knobs[key] for key in keys if key in knobs}
    return known


@cache
def _remarks() -> dict[tuple[str, str], str]:
    """(target, argument) → the comment behind it in ``conf/``, for classes whose text is not ours."""
    remarks: dict[tuple[str, str], str] = {}
    for path in CONFIG_DIR.glob("*/*.yaml"):
        targets: dict[str, str] = {}  # by indentation
        lines = re.findall(r"^( *)(\w+): ?(.*?)(?: # (.*))?$", path.read_text(), re.MULTILINE)
        for indent, key, value, remark in lines:
            if key == "_target_":
                targets[indent] = value
            elif remark and indent in targets:
                remarks[targets[indent], key] = remark
    return remarks


def _components(plain: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Component]]:
    for group, component in COMPONENTS.items():
        node = plain.get(group)
        if isinstance(node, Mapping) and component.has_entries:
            yield from ((f"{group}.{k}", v, component) for k, v in node.items() if isinstance(v, Mapping))
        elif isinstance(node, Mapping):
            yield group, node, component


def _knobs(key: str, node: Mapping[str, Any], component: Component) -> Signature:
    """What the target of a component takes, with what :data:`KNOBS` says of it."""
    return _taken(key, str(node["_target_"]), component)


@cache
def _taken(key: str, target: str, component: Component) -> Signature:
    found = signature(target, component.given, component.named)
    knobs = {}
    for name, knob in found.knobs.items():
        central = f"{key.partition('.')[0]}.*.{name}" if component.has_entries else f"{key}.{name}"
        knobs[name] = KNOBS.get(central, described(knob, _remarks().get((target, name), "")))
    knobs = {name: KNOBS[f"{key}.{name}"] for name in component.own} | knobs
    # what Lightning's callbacks pass on, such as functions, no YAML file can hold
    is_open = found.is_open and not target.startswith("lightning.pytorch.callbacks.")
    return Signature(knobs, found.required, is_open)


def _faults_of_component(
    key: str, node: Mapping[str, Any], component: Component, known: Mapping[str, Knob]
) -> Iterator[tuple[str, str]]:
    target = node.get("_target_")
    if not isinstance(target, str):
        forgotten = " Its first line must be: # @package _global_" * (key in node)
        yield key, f"{key} needs a _target_: the name of the function or class that builds it.{forgotten}"
        return
    if reason := refusal(target):
        yield f"{key}._target_", f"{key}._target_={target}: {reason}"
        return
    kind, is_trusted = definition(component.base), target.partition(".")[0] in trusted_packages()
    loggers = definition(COMPONENTS["logger"].base)
    if component is NESTED and loggers and loggers.name in ancestors(target):
        yield f"{key}._target_", f"{key}._target_={target}: only logger holds those"
        return
    found = definition(target)
    is_function = bool(component.functions and found and found.name.startswith(f"{component.functions}."))
    if kind and kind.name not in ancestors(target) and not is_function and not is_trusted:
        name = component.base.rpartition(".")[2]
        yield f"{key}._target_", f"{key}._target_={target}: it is no {name}"
        return
    taken, is_partial = _knobs(key, node, component), node.get("_partial_") is True
    for name, value in node.items():
        dotted = f"{key}.{name}"
        if name in ("_target_", "_partial_"):
            continue
        if name not in taken.knobs and not taken.is_open:
            own = [f"{key}.{knob}" for knob in taken.knobs]
            yield dotted, unknown(dotted, known or own)
        elif key.startswith(("callbacks.", "logger.")) and _leaves_run_folder(value):
            yield (
                dotted,
                f"{dotted}={value}: must lie in the run folder; give a name or a path relative to it",
            )
        elif nested := list(_nested(dotted, value)):
            for inner, target_node in nested:
                yield from _faults_of_component(inner, target_node, NESTED, {})
        elif name in taken.knobs and (line := taken.knobs[name].problem(dotted, value)):
            yield dotted, line
    if "dataset" in node and key == "data" and (reason := _refusal_of_data(str(node["dataset"]), node)):
        yield "data.dataset", f"data.dataset={node['dataset']}: {reason}"
    for name in sorted(taken.required - set(node)) if not is_partial else []:
        yield f"{key}.{name}", f"{key}.{name} is missing: {target} needs it; +{key}.{name}=… gives it"


SOURCES = "lightning_modules.data.sources"
NEEDS_PROBABILITIES = "needs a loss of probabilities, such as loss=cross_entropy"


def _faults_between(plain: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Values that do not go together."""
    data, trainer, loss, optimizer = (plain.get(k) or {} for k in ("data", "trainer", "loss", "optimizer"))
    engine = (plain.get("model") or {}).get("engine", "torch")
    fold, folds = data.get("fold"), data.get("folds", 5)
    if fold is not None and fold >= folds:
        yield "data.fold", f"data.fold={fold}: with data.folds={folds} there are 0 to {folds - 1}"
    if trainer.get("compile") and engine != "torch":
        key = "trainer.compile"
        yield key, f"{key}=true: torch compiles its own layers only, not those of model.engine={engine}"
    takes_labels = str(loss.get("_target_")).startswith(("torch.", "lightning_modules."))
    if data.get("mix") and takes_labels and loss["_target_"] != "torch.nn.CrossEntropyLoss":
        yield "data.mix", f"data.mix={data['mix']} {NEEDS_PROBABILITIES}, not {loss['_target_']}"
    if trainer.get("precision") == "16-mixed" and str(optimizer.get("_target_")).endswith(".SAM"):
        yield "optimizer", "optimizer=sam does not work in float16: trainer.precision=bf16-mixed or 32-true"
    for name, node in (plain.get("callbacks") or {}).items():
        if not isinstance(node, Mapping) or not str(node["_target_"]).endswith(".LearningRateFinder"):
            continue
        key, (lowest, highest) = f"callbacks.{name}", (node.get("lowest", 1e-5), node.get("highest", 1.0))
        if lowest >= highest:
            yield f"{key}.lowest", f"{key}.lowest={lowest} must lie below highest={highest}"
        if trainer.get("devices", 1) * trainer.get("num_nodes", 1) > 1:
            yield key, f"{key}: looks on one device only; find the rate there and set it"
    for name, node in (plain.get("logger") or {}).items():
        is_csv = isinstance(node, Mapping) and str(node["_target_"]).endswith(".CSVLogger")
        if is_csv and node.get("version") == "" and str(node.get("name", "csv") or ".") == ".":
            key = f"logger.{name}.name"
            yield key, f"{key}: give it one, its metrics.csv would replace the run's own"


def _faults_of_monitors(plain: Mapping[str, Any], chosen: Mapping[str, Metric]) -> Iterator[tuple[str, str]]:
    """The loss and the chosen metrics of every epoch may be monitored, all of validation data."""
    possible = ["val_loss", *(f"val_{row.key}" for row in chosen.values() if row.when == "epoch")]
    for name, node in (plain.get("callbacks") or {}).items():
        monitor = node.get("monitor") if isinstance(node, Mapping) else None
        if monitor is None or monitor in possible:
            continue
        metric = TABLE.get(str(monitor).removeprefix("val_"))
        if metric and metric.key in chosen:
            at_end = metric.when == "end"
            why = f"{metric.key} is computed at the end only" if at_end else "only validation is monitored"
        elif metric and metric.function:
            why = f"metrics=[{','.join(chosen)}] has no {metric.key}"
        else:
            why = "there is no such metric"
        key, choice = f"callbacks.{name}.monitor", " or ".join(possible[::-1])
        yield key, f"{key}={monitor}: {why}; choose {choice}.{nearest(str(monitor), possible)}"


def _refusal_of_data(name: str, options: Mapping[str, Any]) -> str | None:
    """Why there is no data set of this name: one of this project, or a function's dotted name."""
    own = decorated(SOURCES, "source")
    if name not in own and "." not in name:
        return f"no such data set.{nearest(name, own)} There are {', '.join(own)}"
    function = f"{SOURCES}.{name}" if name in own else name
    if name not in own and (reason := refusal(name)):
        return reason
    if options.get("root", ...) is None and "root" in signature(function).knobs:
        return "it is read from files: set data.root=PATH, or DATA_ROOT"
    return None


def _nested(key: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes with a ``_target_`` inside a value."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield key, value
    elif isinstance(value, Mapping | list):
        for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _nested(f"{key}.{name}", item)


def _leaves_run_folder(value: object) -> bool:
    """Whether a value of a callback or logger names a place other than one in the run folder."""
    if isinstance(value, Mapping | list):
        return any(map(_leaves_run_folder, value.values() if isinstance(value, Mapping) else value))
    if not isinstance(value, str):
        return False
    path = PureWindowsPath(value)  # takes / and \\ for separators
    return bool(path.anchor or ".." in path.parts or re.match(r"~|[A-Za-z]\w*:", value))


def plain_values(config: DictConfig, without: Container[str] = ("hydra",)) -> dict[str, Any]:
    """The resolved content of a configuration but for some keys of its top."""
    nodes = {str(key): config[key] for key in config if key not in without}
    return {
        key: OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in nodes.items()
    }
