"""Recipes, configs and the training script that eyas ships."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.errors import PreflightError

PACKAGE = Path(__file__).parents[1]


def shipped_folder() -> Path:
    """Return the folder with `recipes/`, `accelerate_configs/`, `ds_configs/` and `launch/`.

    A wheel holds it in the package, where `setup.py` copies it. In a checkout it is the repository's root.
    """
    in_wheel = PACKAGE / "shipped"
    return in_wheel if in_wheel.is_dir() else PACKAGE.parents[1]


def training_script() -> Path:
    """Return the script that `accelerate launch` starts on every rank.

    Raises PreflightError where this installation has none.
    """
    script = shipped_folder() / "launch" / "train.py"
    if not script.is_file():
        raise PreflightError(f"{script}: no such file; install eyas again, or run it from a checkout")
    return script


def recipe_file(path: Path) -> Path:
    """Return this path, or the shipped recipe for a bare name that is no file here.

    Raises PreflightError for a bare name that no shipped recipe has.
    """
    return _file_or_shipped(path, "recipes", "recipe")


def accelerate_config_file(path: Path) -> Path:
    """Return this path, or the shipped accelerate config for a bare name that is no file here.

    Raises PreflightError for a path that is no file, and for a name that no shipped config has.
    """
    config = _file_or_shipped(path, "accelerate_configs", "accelerate config")
    if not config.is_file():
        raise PreflightError(
            f"{config}: no such accelerate config; name a file, or one of: {', '.join(_names('accelerate_configs'))}"
        )
    return config


def accelerate_settings(config: Path) -> dict[str, Any]:
    """Return the settings of an accelerate config. Raises PreflightError for a file that is none."""
    import yaml

    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise PreflightError(f"{config}: cannot be read: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(settings, dict):
        raise PreflightError(
            f"{config}: is not an accelerate config; copy one of {', '.join(_names('accelerate_configs'))}"
        )
    processes = settings.get("num_processes")
    if processes is not None and (type(processes) is not int or processes < 1):
        raise PreflightError(f"{config}: num_processes should be a whole number from 1 on; found {processes!r}")
    return settings


def processes_of(settings: Mapping[str, Any]) -> int:
    """Return the number of processes that an accelerate config starts, on all machines."""
    return settings.get("num_processes") or 1


def _file_or_shipped(path: Path, folder: str, kind: str) -> Path:
    if path.is_file() or path.suffix or path != Path(path.name):
        return path
    names = _names(folder)
    if path.name in names:
        return shipped_folder() / folder / f"{path.name}.yaml"
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'?" if close else f"name a file, or one of: {', '.join(names)}"
    raise PreflightError(f"{path}: no such file here, and no shipped {kind} of this name; {hint}")


def _names(folder: str) -> list[str]:
    return sorted(file.stem for file in (shipped_folder() / folder).glob("*.yaml"))
