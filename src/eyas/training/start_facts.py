"""Facts of a start that must be the same on every rank: recipe, code, packages, environment and files."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import eyas
from eyas.distributed.topology import deepspeed_file, world_size
from eyas.files import digest_of_digests, remembered_sha256
from eyas.hardware import has_gpu, settings_with_effect
from eyas.preflight.versions import installed_versions
from eyas.recipe import Recipe
from eyas.recipe.source import IN_A_PACKAGE

SMALL_BYTES = 64 * 2**20
"""Largest file whose bytes are compared; of a larger one the size is. Rows are compared again once prepared."""


def start_facts(recipe: Recipe, resume: bool, with_changes: bool) -> dict[str, str]:
    """Return the facts of this rank, each by a name that a user knows."""
    return {
        **dict(_settings("", recipe.model_dump(mode="json"))),
        "--resume": str(resume),
        "--resume-with-changes": str(with_changes),
        "WORLD_SIZE": str(world_size()),
        "device": "GPU" if has_gpu() else "CPU",
        "version of eyas": eyas.__version__,
        "code of eyas": _digest_of_code(),
        "version of Python": platform.python_version(),
        **{f"version of {name}": version for name, version in installed_versions().items()},
        **{f"environment variable {name}": repr(value) for name, value in settings_with_effect().items()},
        **{f"file {file}": digest for file, digest in _files(recipe)},
    }


def _settings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield each value of a recipe with its dotted path."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _settings(f"{path}.{key}" if path else str(key), inner)
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _digest_of_code() -> str:
    """Return a digest of all modules of eyas."""
    package = Path(eyas.__file__).parent
    files = sorted(package.rglob("*.py"))
    return digest_of_digests(
        (file.relative_to(package).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files
    )[:12]


def _files(recipe: Recipe) -> Iterator[tuple[Path, str]]:
    """Yield the local files that a start reads, each with its digest or size."""
    sources = [*recipe.data.training_sources, *recipe.data.held_out_sources.values()]
    local = [each for each in sources if each.is_local and not each.path.startswith(IN_A_PACKAGE)]
    named = [path for source in local for path in source.local_paths()]
    named += [Path(recipe.model.name).expanduser()] if recipe.model.is_local else []
    named += filter(None, [deepspeed_file()])
    for path in dict.fromkeys(named):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                size = file.stat().st_size
                yield file, remembered_sha256(file)[:12] if size <= SMALL_BYTES else f"{size:,} bytes"
