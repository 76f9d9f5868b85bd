"""Arguments of installed library classes, read from source without importing torch."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import NoneType
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import ErrorDetails

from eyas.recipe.library_sources import Definition, find_class, function_in
from eyas.recipe.yaml_reader import Path

BUILTIN_TYPES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "dict": dict, "Dict": dict, "list": list, "List": list,
}  # fmt: skip
STRICT = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", protected_namespaces=())
REQUIRED: Any = ...
MISSING = "Missing:"
UNKNOWN = "Unknown key"


class Argument:
    """An argument of a library: its type, and whether it has a default."""

    def __init__(self, module: str, annotation: ast.expr | None, default: ast.expr | None) -> None:
        self._module, self._annotation, self._default = module, annotation, default
        self.required = default is None

    @cached_property
    def type(self) -> Any:
        """The type; `object` where it is a class that YAML cannot hold.

        Where a dataclass field names its `choices`, the type is one of them.
        """
        choices = _choices_in(self._default)
        if self._annotation is None:
            value = self._default.value if isinstance(self._default, ast.Constant) else None
            return object if value is None else type(value)
        annotated = _type_of(self._annotation, self._module)
        if choices is None:
            return annotated
        return one_of(choices) if annotated is str else Union[one_of(choices), None]  # noqa: UP007


@dataclass(frozen=True)
class LibraryClass:
    """A class of an installed library, such as `peft.LoraConfig`."""

    name: str

    def arguments(self) -> dict[str, Argument]:
        """Return the arguments by name, as `class_arguments` does."""
        module, _, name = self.name.rpartition(".")
        return class_arguments(module, name)


TRAINING_ARGUMENTS = LibraryClass("transformers.TrainingArguments")
SFT_CONFIG = LibraryClass("trl.SFTConfig")
LORA_CONFIG = LibraryClass("peft.LoraConfig")
BITS_AND_BYTES_CONFIG = LibraryClass("transformers.BitsAndBytesConfig")


def class_arguments(module: str, name: str) -> dict[str, Argument]:
    """Return the arguments of a class by name.

    Raises AssertionError where the installed library has no such class.
    """
    definition = find_class(module, name)
    assert definition is not None, f"the installed {module} has no {name}"
    return dict(_arguments_of(definition))


def enumeration(module: str, name: str) -> dict[str, str]:
    """Return the values of an enumeration by the names of its members."""
    definition = find_class(module, name)
    assert definition is not None, f"the installed {module} has no {name}"
    assigned = [node for node in definition.node.body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assigned}


def function_arguments(module: str, name: str, class_name: str | None = None) -> dict[str, Argument]:
    """Return the arguments of a function, or of a method, after the first."""
    return dict(_parameters(function_in(module, name, class_name).args, module))


def one_of(choices: Any) -> Any:
    """Return the type of these literals.

    peft writes `pissa_niter_[number of iters]` for a name that ends in a number.
    """
    values = choices if isinstance(choices, tuple) else (choices,)
    numbered = [value.partition("[")[0] for value in values if isinstance(value, str) and "[" in value]
    plain: Any = Literal.__getitem__(tuple(value for value in values if "[" not in str(value)))
    return Union[(plain, *(Annotated[str, Field(pattern=rf"^{start}\d+$")] for start in numbered))]


def mapping_type(name: str, arguments: Mapping[str, Argument], **replaced: Any) -> type[BaseModel]:
    """Return the type of a mapping that holds these arguments and no others; `replaced` gives types of some."""
    fields: dict[str, Any] = {key: (kind, None) for key, kind in replaced.items()}
    fields |= {
        key: (replaced.get(key) or each.type, REQUIRED if each.required else None) for key, each in arguments.items()
    }
    model: type[BaseModel] = create_model(name, __config__=STRICT, **fields)
    return model


def refusals(annotation: Any, value: Any) -> dict[Path, str]:
    """Return why a value does not fit a type: a message for each place in the value."""
    try:
        TypeAdapter(annotation, config=None if _is_model(annotation) else STRICT).validate_python(value)
    except ValidationError as error:
        found: dict[Path, list[str]] = {}
        for each in error.errors(include_url=False):
            found.setdefault(_place(each, value), []).append(_message(each))
        return {path: " or ".join(dict.fromkeys(found[path])) for path in found if not _is_around(path, found)}
    return {}


def _is_around(path: Path, found: Mapping[Path, list[str]]) -> bool:
    """Return True for the refusal of a whole value by one member of a union, where another refuses a part of it."""
    inner = any(len(other) > len(path) and other[: len(path)] == path for other in found)
    return inner and not any(message.startswith(MISSING) for message in found[path])


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _place(error: ErrorDetails, value: Any) -> Path:
    """Return the keys of an error's place in a value, without pydantic's names of union members."""
    path: list[int | str] = []
    for part in error["loc"]:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            path.append(part)
            value = value[part]  # type: ignore[index]
    return tuple(path)


def _message(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return f"{MISSING} {error['loc'][-1]}"
    if error["type"] == "extra_forbidden":
        return UNKNOWN
    return error["msg"]


@cache
def _arguments_of(definition: Definition) -> dict[str, Argument]:
    """Return the parameters of a class's `__init__`, or its dataclass fields."""
    for statement in definition.node.body:
        if isinstance(statement, ast.FunctionDef):
            return dict(_parameters(statement.args, definition.module))
    return _fields_of(definition)


def _fields_of(definition: Definition) -> dict[str, Argument]:
    """Return the dataclass fields of a class and of its bases."""
    fields = dict(_own_fields(definition)) if _is_dataclass(definition.node) else {}
    for parent in _bases(definition):
        fields = {**_fields_of(parent), **fields}
    return fields


def _bases(definition: Definition) -> Iterator[Definition]:
    for base in definition.node.bases:
        parent = find_class(definition.module, base.id) if isinstance(base, ast.Name) else None
        if parent is not None:
            yield parent


def _is_dataclass(node: ast.ClassDef) -> bool:
    decorators = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Name) and each.id == "dataclass" for each in decorators)


def _own_fields(definition: Definition) -> Iterator[tuple[str, Argument]]:
    for statement in definition.node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, Argument(definition.module, statement.annotation, statement.value)


def _parameters(arguments: ast.arguments, module: str) -> Iterator[tuple[str, Argument]]:
    """Yield the parameters after the first, which is `self` or an optimizer."""
    parameters = arguments.args[1:]
    defaults: list[ast.expr | None] = [None] * (len(parameters) - len(arguments.defaults)) + [*arguments.defaults]
    pairs = [*zip(parameters, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    for parameter, default in pairs:
        yield parameter.arg, Argument(module, parameter.annotation, default)


def _choices_in(default: ast.expr | None) -> tuple[Any, ...] | None:
    """Return the `choices` in the metadata of a dataclass field, where they are written out."""
    if isinstance(default, ast.Call):
        for node in ast.walk(default):
            if isinstance(node, ast.Dict):
                named = {
                    key.value: value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                }
                if isinstance(named.get("choices"), ast.List):
                    return tuple(ast.literal_eval(named["choices"]))
    return None


def _class_type(name: str, module: str) -> Any:
    """Return the values of an enumeration, a mapping of a dataclass's fields, or `object` for any other class."""
    definition = find_class(module, name)
    if definition is None:
        return object
    if any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in definition.node.bases):
        return one_of(tuple(enumeration(module, name).values()))
    return mapping_type(name, _fields_of(definition)) if _is_dataclass(definition.node) else object


def _either_of(members: Iterable[Any]) -> Any:
    """Return a union. Text stands next to an enumeration, and `dict` next to a dataclass, only for what makes one."""
    types = tuple(members)
    named = any(_is_model(each) or getattr(each, "__origin__", None) is Literal for each in types)
    return Union[tuple(each for each in types if not (named and each in (str, dict)))]  # noqa: UP007


def _type_of(node: ast.expr, module: str) -> Any:
    match node:
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str(text)):  # a forward reference
            return _type_of(ast.parse(text, mode="eval").body, module)
        case ast.Name(id="Any" | "object"):
            return object
        case ast.Name(id=name):
            return BUILTIN_TYPES[name] if name in BUILTIN_TYPES else _class_type(name, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either_of((_type_of(left, module), _type_of(right, module)))
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _either_of((_type_of(inner, module), NoneType))
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
            return _either_of(_type_of(member, module) for member in members)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return one_of(ast.literal_eval(choices))
        case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
            return list[_type_of(inner, module)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict" | "Dict"), slice=ast.Tuple(elts=[key, inner])):
            return dict[_type_of(key, module), _type_of(inner, module)]  # type: ignore[misc]
    return object
