"""Search of a recipe for access tokens, which are never printed."""

import re
from collections.abc import Iterator
from typing import Any

from eyas.recipe.yaml_reader import Path

SECRET = re.compile(
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}|AIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|wandb_v1_\w{20,}"
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|\b(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"
)
"""Shapes of access tokens. Forty hexadecimal digits are a wandb key, or a commit where a revision is expected."""

WORD_WITH_SECRET = re.compile(rf"[^\s:]*(?:{SECRET.pattern})[^\s:]*")
"""A whole word that holds a token; errors print `…` in its place."""

REFUSAL = "looks like an access token; log in with the service's own command and remove it from the recipe"


def access_tokens(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the path of each value that looks like an access token, with a message."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from access_tokens(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from access_tokens(inner, (*path, index))
    elif isinstance(value, str) and SECRET.search(value) and not _is_commit(path, value):
        yield path, REFUSAL


def _is_commit(path: Path, value: str) -> bool:
    return path[-1] == "revision" and re.fullmatch("[0-9a-f]{40}", value) is not None
