"""Recipes with some settings changed, and the checks of a recipe that come before its rows are read."""

import re
from copy import deepcopy
from pathlib import Path

import yaml

from eyas.hardware import has_gpu
from eyas.preflight.checks import check, refuse_if_blocked
from eyas.recipe import at_their_places, load_recipe
from eyas.recipe.yaml_reader import read_yaml
from eyas.run_directory import RunDirectory
from eyas.tasks.argument_refusals import refuse_arguments
from eyas.tasks.model_refusals import refuse_model
from eyas.training.run_summary import refuse_float16_autocast

KINDS = {
    "sft": {"task": "sft", "adapter": {"method": "lora"}},
    "classes": {"task": "sequence_classification", "adapter": {"method": "lora"}},
    "full": {"task": "sft"},
}


class FieldRecipe:
    """A recipe file with some settings, written as `section.key=value`; its base and rows exist."""

    def __init__(self, folder: Path, base: Path, rows: Path, kind: str, settings: str) -> None:
        self.file = folder / "recipe.yaml"
        value = {
            **deepcopy(KINDS[kind]),
            "model": {"name": str(base), "dtype": "float32"},
            "data": {"train": {"path": str(rows)}, "evaluation": {"path": str(rows)}},
            "training": {},
        }
        for setting in settings.split("; "):
            dotted, _, right = setting.partition("=")
            *path, key = dotted.split(".")
            section = value
            for name in path:
                section = section.setdefault(name, {})
            section[key] = read_yaml(right).value
        self.file.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")

    def settings_in(self, message: str) -> list[str]:
        """Return the settings of a refusal's lines; each must stand at the line and column of its key."""
        document = read_yaml(self.file.read_text(encoding="utf-8"))
        keys, settings = document.values | document.keys, []
        for line in message.splitlines():
            refused = re.fullmatch(rf"(refused: )?{re.escape(str(self.file))}:(\d+):(\d+): ([\w.]+): (.+)", line)
            assert refused is not None, line
            *_, row, column, setting, _ = refused.groups()
            path = tuple(int(part) if part.isdigit() else part for part in setting.split("."))
            nearest = next(path[:length] for length in range(len(path), 0, -1) if path[:length] in keys)
            assert keys[nearest] == (int(row), int(column)), line
            settings.append(setting)
        return settings

    def check(self, model: bool = True) -> None:
        """Do everything that a start does before it reads rows; without a `model`, what needs no base."""
        with at_their_places(self.file, []):
            recipe = load_recipe(self.file)
            refuse_if_blocked(check(recipe))
            refuse_float16_autocast(recipe, has_gpu())
            refuse_arguments(recipe, RunDirectory(self.file.parent / "run"))
            if model:
                refuse_model(recipe)
