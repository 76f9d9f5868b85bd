"""What an installed library class accepts, read from its source so that torch stays unimported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

BUILTIN_TYPES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "dict": dict, "Dict": dict, "list": list, "List": list,
}  # fmt: skip


@dataclass(frozen=True)
class LibraryClass:
    """A library class and those it inherits its arguments from, each as (package, file, class)."""

    name: str
    sources: tuple[tuple[str, str, str], ...]

    def arguments(self) -> dict[str, Any]:
        """Return each argument's name and its type; `object` where the type is the library's own."""
        found: dict[str, Any] = {}
        for package, file, class_name in self.sources:
            for name, type_ in _arguments_of_class(package, file, class_name).items():
                found.setdefault(name, type_)
        return found

    def refusal(self, argument: str, value: Any) -> str | None:
        """Return why the class cannot take this value, or None when its type fits."""
        try:
            TypeAdapter(self.arguments()[argument], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            return error.errors()[0]["msg"]
        return None


TRAINING_ARGUMENTS = LibraryClass(
    "transformers.TrainingArguments", (("transformers", "training_args.py", "TrainingArguments"),)
)
SFT_CONFIG = LibraryClass(
    "trl.SFTConfig",
    (
        ("trl", "trainer/sft_config.py", "SFTConfig"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        *TRAINING_ARGUMENTS.sources,
    ),
)
LORA_CONFIG = LibraryClass(
    "peft.LoraConfig", (("peft", "tuners/lora/config.py", "LoraConfig"), ("peft", "config.py", "PeftConfig"))
)
BITS_AND_BYTES_CONFIG = LibraryClass(
    "transformers.BitsAndBytesConfig",
    (("transformers", "utils/quantization_config.py", "BitsAndBytesConfig"),),
)


@cache
def _arguments_of_class(package: str, file: str, class_name: str) -> dict[str, Any]:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is not installed"
    source = Path(spec.submodule_search_locations[0]) / file
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return dict(_dataclass_fields(node)) or dict(_parameters_of_init(node))
    raise AssertionError(f"{source} no longer defines {class_name}")


def _dataclass_fields(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, _type_of(statement.annotation)


def _parameters_of_init(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """Yield the parameters of a class that annotates nothing; a literal default tells the type."""
    init = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
    parameters = init.args.args[1:]
    for parameter, default in zip(parameters, init.args.defaults, strict=True):
        value = default.value if isinstance(default, ast.Constant) else None
        yield parameter.arg, object if value is None else type(value)


def _one_of(choices: Any) -> Any:
    """Return the type of these values; peft writes `pissa_niter_[number of iters]` for one with any number."""
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
