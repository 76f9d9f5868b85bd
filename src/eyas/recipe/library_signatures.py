"""Arguments of installed library classes, read from source without importing torch."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

BUILTIN_TYPES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "dict": dict, "Dict": dict, "list": list, "List": list,
}  # fmt: skip


@dataclass(frozen=True)
class LibraryClass:
    """A class of an installed library, such as `peft.LoraConfig`."""

    name: str

    def arguments(self) -> dict[str, Any]:
        """Return the type of each argument by name.

        The type is `object` where it is a class of the library.

        Raises AssertionError where the installed library has no such class.
        """
        module, _, name = self.name.rpartition(".")
        definition = _find_class(module, name)
        assert definition is not None, f"the installed {module} has no {name}"
        return _arguments_of(definition)

    def refusal(self, argument: str, value: Any) -> str | None:
        """Return why a value does not fit an argument's type, or None."""
        try:
            TypeAdapter(self.arguments()[argument], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            return error.errors()[0]["msg"]
        return None


TRAINING_ARGUMENTS = LibraryClass("transformers.TrainingArguments")
SFT_CONFIG = LibraryClass("trl.SFTConfig")
LORA_CONFIG = LibraryClass("peft.LoraConfig")
BITS_AND_BYTES_CONFIG = LibraryClass("transformers.BitsAndBytesConfig")


class _Definition(NamedTuple):
    module: str
    node: ast.ClassDef


class _Module(NamedTuple):
    """Classes and imports of a module; an import is a module and a name in it."""

    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]


@cache
def _find_class(module: str, name: str) -> _Definition | None:
    """Return the definition of a class, also where a module re-exports it."""
    read = _read_module(module)
    if name in read.classes:
        return _Definition(module, read.classes[name])
    return _find_class(*read.imports[name]) if name in read.imports else None


@cache
def _read_module(module: str) -> _Module:
    """Return the classes and imports of a module; none outside installed packages."""
    file = _source_of(module)
    if file is None:
        return _Module({}, {})
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = {node.name: _without_methods(node) for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = {
        alias.asname or alias.name: (resolve_name("." * node.level + (node.module or ""), package), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return _Module(classes, imports)


def _source_of(module: str) -> Path | None:
    top, *inner = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *inner)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def _without_methods(node: ast.ClassDef) -> ast.ClassDef:
    """Return the class with its fields and the signature of `__init__` alone.

    A cache of whole classes would slow down Python's garbage collection.
    """
    node.body = [
        statement
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
        or (isinstance(statement, ast.FunctionDef) and statement.name == "__init__")
    ]
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef):
            statement.body = []
    return node


@cache
def _arguments_of(definition: _Definition) -> dict[str, Any]:
    """Return the parameters of a class's `__init__`, or its dataclass fields."""
    for statement in definition.node.body:
        if isinstance(statement, ast.FunctionDef):
            return dict(_parameters(statement.args))
    return _fields_of(definition)


def _fields_of(definition: _Definition) -> dict[str, Any]:
    """Return the dataclass fields of a class and of its bases."""
    fields = dict(_own_fields(definition.node)) if _is_dataclass(definition.node) else {}
    for base in definition.node.bases:
        parent = _find_class(definition.module, base.id) if isinstance(base, ast.Name) else None
        fields = {**_fields_of(parent), **fields} if parent else fields
    return fields


def _is_dataclass(node: ast.ClassDef) -> bool:
    decorators = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Name) and each.id == "dataclass" for each in decorators)


def _own_fields(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, _type_of(statement.annotation)


def _parameters(arguments: ast.arguments) -> Iterator[tuple[str, Any]]:
    """Yield the parameters after `self`, each with the type of its literal default."""
    parameters = arguments.args[1:]
    defaults = [None] * (len(parameters) - len(arguments.defaults)) + arguments.defaults
    for parameter, default in zip(parameters, defaults, strict=True):
        value = default.value if isinstance(default, ast.Constant) else None
        yield parameter.arg, object if value is None else type(value)


def _one_of(choices: Any) -> Any:
    """Return the type of these literals.

    peft writes `pissa_niter_[number of iters]` for a name that ends in a number.
    """
    values = choices if isinstance(choices, tuple) else (choices,)
    numbered = [value.partition("[")[0] for value in values if isinstance(value, str) and "[" in value]
    plain: Any = Literal.__getitem__(tuple(value for value in values if "[" not in str(value)))
    return Union[(plain, *(Annotated[str, Field(pattern=rf"^{start}\d+$")] for start in numbered))]


def _type_of(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str(text)):  # a forward reference
            return _type_of(ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return BUILTIN_TYPES.get(name, object)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_type_of(left), _type_of(right)]  # noqa: UP007  `|` does not join values
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return Union[_type_of(inner), None]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
            return Union[tuple(_type_of(member) for member in members)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return _one_of(ast.literal_eval(choices))
        case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
            return list[_type_of(inner)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict" | "Dict")):
            return dict
    return object
