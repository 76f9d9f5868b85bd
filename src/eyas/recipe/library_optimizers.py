"""Packages that the installed transformers needs for an optimizer, read from its source."""

import ast
from collections.abc import Iterator
from functools import cache

from eyas.recipe.library_signatures import enumeration
from eyas.recipe.library_sources import function_in, value_in

_MODULE = "transformers.trainer_optimizer"


@cache
def packages_of(optimizer: str | None) -> frozenset[str]:
    """Return the packages that an optimizer is imported from, besides torch; none for the default."""
    handler = None if optimizer is None else dict(_handlers())[optimizer]
    imports = [] if handler is None else ast.walk(function_in(_MODULE, handler))
    modules = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom) and not node.level]
    return frozenset(module.partition(".")[0] for module in modules) - {"torch"}


def _handlers() -> Iterator[tuple[str, str]]:
    """Yield each optimizer with the name of the function that makes it."""
    members = enumeration("transformers.training_args", "OptimizerNames")
    table = value_in(_MODULE, "_OPTIMIZER_HANDLERS")
    assert isinstance(table, ast.Dict)
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Attribute):
            yield members[key.attr], ast.unparse(value)
        elif isinstance(value, ast.Call):  # **dict.fromkeys(LIST, function)
            optimizers, function = map(ast.unparse, value.args)
            for each in ast.walk(value_in(_MODULE, optimizers)):
                if isinstance(each, ast.Attribute):
                    yield members[each.attr], function
