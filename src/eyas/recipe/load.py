"""Loading of recipes, with all mistakes of a file reported at once."""

import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from eyas.errors import RecipeError
from eyas.recipe import yaml_reader
from eyas.recipe.access_tokens import WORD_WITH_SECRET
from eyas.recipe.nearby import look_next_to
from eyas.recipe.places import Places
from eyas.recipe.recipe import Recipe
from eyas.recipe.validation import RETIRED, nearest, validated
from eyas.recipe.yaml_reader import DEEPEST_LEVEL, LARGEST_BYTES, MOST_PROBLEMS, TOO_LARGE, read_yaml


def load_run_recipe(file: Path, overrides: Sequence[str] = (), saved_template: Path | None = None) -> Recipe:
    """Return the resolved recipe of a run, without retired settings.

    `saved_template` is the run's own copy of its chat template, in case the recipe's is gone.
    """
    return load_recipe(file, overrides, RETIRED.keys(), saved_template)


def load_recipe(
    file: Path | str,
    overrides: Sequence[str] = (),
    ignored: Collection[yaml_reader.Path] = (),
    saved_template: Path | None = None,
) -> Recipe:
    """Return the recipe of a YAML file and `section.key=value` overrides.

    `ignored` holds the paths (section, key) of settings to drop from the file, `saved_template` a copy of its template.
    Raises RecipeError with one line per mistake, each as `file:line:column: path: what is wrong; what to do`.
    """
    file = Path(file)
    document = read_yaml(_text_of(file))
    places = Places(str(file), document)
    mistakes = [(position, f"{file}:{position[0]}:{position[1]}: {message}") for position, message in document.problems]
    if isinstance(document.value, dict):
        for section, key in ignored:
            (document.value.get(section) or {}).pop(key, None)
        if not ignored:  # the resolved recipe of a run has found its files already
            look_next_to(file, document.value)
        _apply_overrides(document.value, overrides, places)
    recipe, problems = validated(document.value)
    if document.value is not None or not mistakes:
        mistakes += [(places.sort_key(path), places.line(path, message)) for path, message in problems]
    if mistakes or places.override_mistakes:
        lines = [line for _, line in sorted(mistakes)][:MOST_PROBLEMS] + places.override_mistakes[:MOST_PROBLEMS]
        lines += ["… and more"] * (max(len(mistakes), len(places.override_mistakes)) >= MOST_PROBLEMS)
        raise RecipeError(WORD_WITH_SECRET.sub("…", "\n".join(lines)))
    assert recipe is not None
    recipe = _with_chat_template(recipe, file, places, saved_template)
    return recipe if recipe.run_directory else recipe.model_copy(update={"run_directory": f"runs/{file.stem}"})


def _text_of(file: Path) -> str:
    """Return a recipe's text. Its kind and size are looked at before it is read: a pipe would be waited for."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RecipeError(f"{file}: is not a file; name a recipe")
        if status.st_size > LARGEST_BYTES:
            raise RecipeError(f"{file}: {TOO_LARGE}")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe{nearest(file.name, _recipes_in_the_folder_of(file))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as UTF-8 text: {error}") from None


def _with_chat_template(recipe: Recipe, file: Path, places: Places, saved: Path | None) -> Recipe:
    """Return the recipe with its chat template resolved.

    The path may be relative to the recipe's folder or to the working directory.
    """
    name = recipe.model.chat_template
    if name is None:
        return recipe
    template = next((path for path in (file.parent / name, Path(name)) if path.is_file()), saved)
    if template is None or template.suffix != ".jinja":
        problem = "no such file" if template is None else "a chat template is a .jinja file"
        raise RecipeError(places.line(("model", "chat_template"), f"{problem}; found {name!r}"))
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": str(template)})})


def _apply_overrides(value: dict[str, Any], overrides: Sequence[str], places: Places) -> None:
    for text in overrides:
        dotted, equals, right = text.partition("=")
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", dotted):
            places.override_mistakes.append(f"override {text}: write section.key=value, such as training.max_steps=10")
            continue
        if dotted.count(".") > DEEPEST_LEVEL:
            name = f"{dotted[:40]}…={right[:20]}"
            places.override_mistakes.append(f"override {name}: nested deeper than {DEEPEST_LEVEL} levels; shorten it")
            continue
        parsed = read_yaml(right)
        if parsed.problems:
            places.override_mistakes.append(f"override {text}: {parsed.problems[0][1]}")
            continue
        path = tuple(dotted.split("."))
        places.override(path, text)
        section = value
        for depth, key in enumerate(path[:-1], start=1):
            if section.get(key) is not None and not isinstance(section[key], dict):
                value_at = ".".join(path[:depth])
                places.override_mistakes.append(f"override {text}: {value_at} is a value, not a section")
                break
            section[key] = section.get(key) or {}
            section = section[key]
        else:
            section[path[-1]] = parsed.value


def _recipes_in_the_folder_of(file: Path) -> list[str]:
    return [f.name for f in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
