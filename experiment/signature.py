"""What a function or class is and takes, read from its source text: nothing is imported.

Importing torch takes seconds, and importing a module that a run folder names would run it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

Definer = ast.FunctionDef | ast.ClassDef | ast.expr


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
            return find_spec(module) or PathFinder.find_spec(module, [str(Path.cwd())])
    except (ImportError, ValueError):
        return None
    around = _spec(package)
    if around is None or around.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, list(around.submodule_search_locations))


@cache
def _read(module: str) -> _Module | None:
    spec = _spec(module)
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
