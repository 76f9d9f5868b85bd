"""Source code of installed libraries, parsed without importing them."""

import ast
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import NamedTuple


class Definition(NamedTuple):
    """A class, and the module that defines it."""

    module: str
    node: ast.ClassDef


class _Module(NamedTuple):
    """Classes and imports of a module; an import is a module and a name in it."""

    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]


@cache
def find_class(module: str, name: str) -> Definition | None:
    """Return the definition of a class, also where a module re-exports it."""
    read = _read_module(module)
    if name in read.classes:
        return Definition(module, read.classes[name])
    return find_class(*read.imports[name]) if name in read.imports else None


def function_in(module: str, name: str, class_name: str | None = None) -> ast.FunctionDef:
    """Return a function of a module, or a method of a class in it.

    Raises AssertionError where the installed module has none of that name.
    """
    for node in _body_of(module, class_name):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise AssertionError(f"the installed {module} has no function {name}")


def value_in(module: str, name: str, class_name: str | None = None) -> ast.expr:
    """Return the expression assigned to a name of a module, or of a class in it.

    Raises AssertionError where the installed module assigns no such name.
    """
    for node in _body_of(module, class_name):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            return node.value
    raise AssertionError(f"the installed {module} has no {name}")


def text_keys(node: ast.AST) -> list[str]:
    """Return the text keys of the first dictionary written in a piece of source."""
    dictionary = next(each for each in ast.walk(node) if isinstance(each, ast.Dict))
    return [key.value for key in dictionary.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _body_of(module: str, class_name: str | None) -> list[ast.stmt]:
    body = _tree_of(module).body
    if class_name is None:
        return body
    return next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == class_name)


@cache
def _read_module(module: str) -> _Module:
    """Return the classes and imports of a module; none outside installed packages."""
    file = _source_of(module)
    if file is None:
        return _Module({}, {})
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    tree = _tree_of(module)
    classes = {node.name: _without_methods(node) for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = {
        alias.asname or alias.name: (resolve_name("." * node.level + (node.module or ""), package), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return _Module(classes, imports)


def _tree_of(module: str) -> ast.Module:
    file = _source_of(module)
    assert file is not None, f"{module} is not installed as source"
    return ast.parse(file.read_text(encoding="utf-8"))


def _source_of(module: str) -> Path | None:
    top, *inner = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *inner)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def _without_methods(node: ast.ClassDef) -> ast.ClassDef:
    """Return the class with its fields, values and the signature of `__init__` alone.

    A cache of whole classes would slow down Python's garbage collection.
    """
    node.body = [
        statement
        for statement in node.body
        if isinstance(statement, ast.AnnAssign | ast.Assign)
        or (isinstance(statement, ast.FunctionDef) and statement.name == "__init__")
    ]
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef):
            statement.body = []
    return node
