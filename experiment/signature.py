"""What a function or class is and takes, read from its source text: nothing is imported.

Importing torch takes seconds, and importing a module that a run folder names would run it.
"""

import ast
import atexit
import gc
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from experiment.knob import Knob, text

Definer = ast.FunctionDef | ast.ClassDef | ast.expr

INTERVAL = re.compile(r"[\[(](?:-?inf|-?[\d.e-]+), ?(?:inf|-?[\d.e-]+)[\])]")
"""An interval of numbers in a docstring or ``Annotated``, such as ``[0, 1)``."""

KINDS = {"int": "int", "float": "float", "bool": "bool", "str": "str", "dict": "dict", "Path": "str"}
UNREAD = {*sys.stdlib_module_names, "numpy"}
"""Packages of which no component comes; reading them costs a tenth of a second."""

atexit.register(gc.freeze)  # or Python takes half a second to take the parsed sources apart when it ends
ANY, NULL = Knob("any", optional=True), Knob("null", optional=True)


@dataclass(frozen=True)
class Definition:
    """A function, a class or an assigned expression such as a type alias, and the module that defines it."""

    module: str
    node: Definer

    @property
    def name(self) -> str:
        """The full name, such as ``torch.nn.modules.loss.CrossEntropyLoss``."""
        return f"{self.module}.{getattr(self.node, 'name', '')}"


@dataclass(frozen=True)
class _Module:
    """The names that a module's text defines, those that it imports, and whose names it imports all."""

    defined: dict[str, Definer]
    imported: dict[str, str]
    starred: list[str]


@cache
def definition(name: str) -> Definition | None:
    """Where the thing of a dotted name is defined, re-exports followed; None if its source is not found."""
    return _find(name, frozenset())


@cache
def ancestors(name: str) -> frozenset[str]:
    """Full names of a class and all its base classes as far as their source is found."""
    found = definition(name)
    if found is None or not isinstance(found.node, ast.ClassDef):
        return frozenset()
    bases = (ancestors(full) for base in found.node.bases if (full := qualified(base, found.module)))
    return frozenset({found.name}).union(*bases)


@cache
def names_of(module: str) -> frozenset[str] | None:
    """The names that can be taken from a module; None if its source is not found."""
    names, starred, read = _read(module), [module], set[str]()
    if names is None:
        return None
    while starred:
        other = starred.pop()
        if other not in read and (names := _read(other)):
            read |= {other, *names.defined, *names.imported}
            starred += names.starred
    return frozenset(name for name in read if "." not in name)


def decorated(module: str, decorator: str) -> list[str]:
    """Names of the functions of a module that have a decorator."""
    names = _read(module)
    return [
        name
        for name, node in (names.defined.items() if names else ())
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(mark).partition("(")[0] == decorator for mark in node.decorator_list)
    ]


def qualified(expression: ast.expr, module: str) -> str | None:
    """The full dotted name that an expression such as ``nn.Module`` has in ``module``; None for others."""
    if isinstance(expression, ast.Subscript):  # Generic[T], Base[T]
        return qualified(expression.value, module)
    if isinstance(expression, ast.Attribute):
        owner = qualified(expression.value, module)
        return owner and f"{owner}.{expression.attr}"
    if isinstance(expression, ast.Name) and (names := _read(module)):
        return names.imported.get(expression.id, f"{module}.{expression.id}")
    return None


def _find(name: str, seen: frozenset[str]) -> Definition | None:
    module, _, attribute = name.rpartition(".")
    if not module or name in seen:
        return None
    seen |= {name}
    names = _read(module)
    if names is None:
        return None
    if attribute in names.defined:
        return Definition(module, names.defined[attribute])
    if attribute in names.imported:
        return _find(names.imported[attribute], seen)
    found = (_find(f"{other}.{attribute}", seen) for other in names.starred)
    return next(filter(None, found), None)


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, found without importing the packages around it, as ``find_spec`` would."""
    package, _, _ = module.rpartition(".")
    try:
        if not package:
            return find_spec(module)
    except (ImportError, ValueError):
        return None
    around = _spec(package)
    if around is None or around.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, list(around.submodule_search_locations))


@cache
def _read(module: str) -> _Module | None:
    spec = None if module.partition(".")[0] in UNREAD else _spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    names = _Module({}, {}, [])
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    for statement in _statements(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.defined[statement.name] = statement
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            names.defined[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                local = alias.asname or alias.name.partition(".")[0]
                names.imported[local] = alias.name if alias.asname else local
        elif isinstance(statement, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
            origin = ".".join([*(parents if statement.level else []), *filter(None, [statement.module])])
            for alias in statement.names:
                if alias.name == "*":
                    names.starred.append(origin)
                else:
                    names.imported[alias.asname or alias.name] = f"{origin}.{alias.name}"
    return names


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, also those in ``if`` and ``try``."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements(statement.body + statement.orelse)


@dataclass(frozen=True)
class Signature:
    """The arguments that a function or class takes, but for those that the project gives itself."""

    knobs: dict[str, Knob]
    required: frozenset[str]
    """Those without a default."""
    is_open: bool
    """Whether it takes others, too (``**kwargs``)."""


@cache
def signature(target: str, given: int = 0, named: tuple[str, ...] = ()) -> Signature:
    """What the function or class ``target`` takes.

    Types come from the annotations, range and meaning from ``Annotated[float, "[0, 1)", "what it is"]`` or
    from the docstring (``Args: rate: what it is, in [0, 1).``); a TypedDict in ``Unpack`` is followed.

    Args:
        target: a dotted name whose :func:`definition` is found.
        given: number of leading arguments that the project gives.
        named: names of those that it gives by name.
    """
    found = definition(target)
    assert found is not None
    every = _arguments(found)
    knobs = {name: knob for name, knob in list(every.knobs.items())[given:] if name not in named}
    return Signature(knobs, every.required & knobs.keys(), every.is_open)


def _arguments(found: Definition) -> Signature:
    """All that is declared, ``self`` left out."""
    node, module = found.node, found.module
    if isinstance(node, ast.FunctionDef):
        return _of_function(node, module, ast.get_docstring(node) or "")
    if not isinstance(node, ast.ClassDef):
        return Signature({}, frozenset(), True)
    docstring = ast.get_docstring(node) or ""
    bases = [definition(full) for base in node.bases if (full := qualified(base, module))]
    classes = [base for base in bases if base and isinstance(base.node, ast.ClassDef)]
    inherited = _arguments(classes[0]) if classes else Signature({}, frozenset(), False)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            docstring += f"\n{ast.get_docstring(statement) or ''}"
            own = _of_function(statement, module, docstring, is_method=True)
            passes_on = statement.args.vararg and statement.args.kwarg and not own.knobs
            return inherited if passes_on else own
    marks = [*node.decorator_list, *node.bases]
    if not any(re.search(r"\bdataclass\b|\bTypedDict$", ast.unparse(mark)) for mark in marks):
        return inherited
    knobs, required, documented = dict(inherited.knobs), set(inherited.required), _documented(docstring)
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name = field.target.id
            knobs[name] = _knob(field.annotation, field.value, module, documented.get(name, ""))
            required |= {name} if field.value is None else set()
    return Signature(knobs, frozenset(required), False)


def _of_function(node: ast.FunctionDef, module: str, docstring: str, *, is_method: bool = False) -> Signature:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    without: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    pairs = [*zip(positional, [*without, *args.defaults], strict=True)][is_method:]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    said = _documented(docstring)
    knobs = {a.arg: _knob(a.annotation, default, module, said.get(a.arg, "")) for a, default in pairs}
    required = frozenset(argument.arg for argument, default in pairs if default is None)
    more = args.kwarg and args.kwarg.annotation
    if isinstance(more, ast.Subscript) and ast.unparse(more.value).endswith("Unpack"):
        full = qualified(more.slice, module)
        if full and (typed_dict := definition(full)):
            inner = _arguments(typed_dict)
            return Signature(knobs | inner.knobs, required | inner.required, inner.is_open)
    return Signature(knobs, required, args.kwarg is not None)


def _documented(docstring: str) -> dict[str, str]:
    """Argument → what the ``Args`` section of a docstring says of it."""
    _, _, section = inspect.cleandoc(docstring).partition("Args:\n")
    entries = re.split(
        r"^ {2,8}\*{0,2}(\w+)(?: ?\([^)\n]*\))?:\s", section.split("\n\n")[0], flags=re.MULTILINE
    )
    return {name: " ".join(said.split()) for name, said in zip(entries[1::2], entries[2::2], strict=True)}


def _knob(annotation: ast.expr | None, default: ast.expr | None, module: str, said: str) -> Knob:
    """What a parameter takes, from its annotation, its default and what its docstring says of it."""
    knob = _type(annotation, module) if annotation else ANY
    value = default.value if isinstance(default, ast.Constant) else ...
    if not annotation and isinstance(value, bool | str | float | int):
        knob = Knob(type(value).__name__.replace("int", "float"))
    shown = "" if value is ... else text(value)
    knob = replace(knob, optional=knob.optional or value is None, default=shown)
    return replace(described(knob, said), meaning=knob.meaning) if knob.meaning else described(knob, said)


def described(knob: Knob, said: str) -> Knob:
    """The knob with the range and the meaning that a sentence gives; an empty one changes nothing."""
    interval = INTERVAL.search(said)
    meaning = re.split(r"\.(?: |$)|,? in [\[(]", said)[0]
    return replace(knob, interval=interval[0] if interval else knob.interval, meaning=meaning or knob.meaning)


def _type(node: ast.expr, module: str) -> Knob:
    """What an annotation allows. What a YAML file cannot hold, such as a Tensor, is left out of a union."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _type(ast.parse(node.value, mode="eval").body, module)
        return NULL if node.value is None else ANY
    if isinstance(node, ast.BinOp):
        return _union([_type(node.left, module), _type(node.right, module)])
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _generic((qualified(node.value, module) or "").rpartition(".")[2], inner, module)
    full = qualified(node, module) or ""
    name = full.rpartition(".")[2]
    if name in KINDS:
        return Knob(KINDS[name])
    found = definition(full)
    is_alias = found is not None and isinstance(found.node, ast.expr)
    return _type(found.node, found.module) if found and is_alias else ANY  # type: ignore[arg-type]


def _generic(name: str, inner: list[ast.expr], module: str) -> Knob:
    constants = [part.value for part in inner if isinstance(part, ast.Constant)]
    if name == "Annotated":
        knob = _type(inner[0], module)
        for note in (note for note in constants if isinstance(note, str)):
            is_interval = INTERVAL.fullmatch(note)
            knob = replace(knob, interval=note) if is_interval else replace(knob, meaning=note)
        return knob
    if name == "Literal":
        choices = tuple(value for value in constants if value is not None)
        return Knob(type(choices[0]).__name__, choices=choices, optional=None in constants)
    knobs = [
        _type(part, module) for part in inner if not (isinstance(part, ast.Constant) and part.value is ...)
    ]
    if name in ("Optional", "Union"):
        return _union([*knobs, *[NULL] * (name == "Optional")])
    is_tuple = name.lower() == "tuple"
    if name.lower() in ("list", "sequence", "iterable", "collection") or (
        is_tuple and len(knobs) < len(inner)
    ):
        return replace(knobs[0], kind=f"list[{knobs[0].kind}]", optional=False)
    if is_tuple:
        return replace(knobs[0], kind=f"tuple[{', '.join(knob.kind for knob in knobs)}]", optional=False)
    return Knob("dict") if name.lower() in ("dict", "mapping") else ANY


def _union(knobs: list[Knob]) -> Knob:
    typed = [knob for knob in knobs if knob not in (ANY, NULL)]
    optional = NULL in knobs or any(knob.optional for knob in typed)
    if not typed:
        return replace(ANY, optional=optional)
    kinds = dict.fromkeys(kind for knob in typed for kind in knob.kind.split(" | "))
    has_choices = all(knob.choices for knob in typed)
    choices = tuple(choice for knob in typed for choice in knob.choices) if has_choices else ()
    return replace(typed[0], kind=" | ".join(kinds), choices=choices, optional=optional)
