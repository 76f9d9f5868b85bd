"""Names of the installed transformers' attention functions and kinds of models, read from its source."""

import ast

from eyas.recipe.library_sources import text_keys, value_in


def attention_names() -> list[str]:
    """Return the names of transformers' attention functions that train."""
    names = text_keys(value_in("transformers.modeling_utils", "_global_mapping", "AttentionInterface"))
    return ["eager", *(name for name in names if "|" not in name)]  # paged attention only generates


def model_types(mapping: str) -> frozenset[str]:
    """Return the `model_type`s that an automatic model class loads; `mapping` names its table."""
    table = value_in("transformers.models.auto.modeling_auto", mapping)
    pairs = [node.elts for node in ast.walk(table) if isinstance(node, ast.Tuple)]
    return frozenset(str(ast.literal_eval(kind)) for kind, _ in pairs)
