"""Messages for a hundred misspelled keys in the shipped recipes."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import yaml
from pydantic import BaseModel

from eyas.errors import RecipeError
from eyas.recipe import Recipe, load_recipe
from eyas.recipe.section import LibrarySection
from eyas.recipe.section_types import sections_in

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.yaml"))
WANTED, SEED = 100, 0


def test_misspelled_keys_are_refused_at_their_place_and_most_are_guessed():
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    tried, torch_was_imported = json.loads(done.stdout)

    guessed = [mutation for mutation in tried if mutation["guessed"]]
    print(f"{len(tried)} mutations, {len(guessed)} guessed, slowest {max(m['seconds'] for m in tried):.3f} s")
    print("\n".join(f"not guessed, {m['original']}: {m['message']}" for m in tried if not m["guessed"]))
    assert len(tried) == WANTED
    assert {mutation["recipe"] for mutation in tried} == {file.name for file in RECIPES}
    assert [mutation for mutation in tried if not mutation["named"]] == []
    assert len(guessed) >= 95
    assert max(mutation["seconds"] for mutation in tried) < 1
    assert not torch_was_imported


def mutations(generator: random.Random) -> Iterator[tuple[Path, str, yaml.ScalarNode, str]]:
    """Yield a recipe, and the path, original and spelling of a misspelled key."""
    keys = {
        file: list(keys_of(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))) for file in RECIPES
    }
    while True:
        file = generator.choice(RECIPES)
        path, key = generator.choice(keys[file])
        typed = mistyped(key.value, generator)
        if typed and typed not in names_at(path):  # an empty key has no name to refuse
            yield file, ".".join((*path, typed)), key, typed


def keys_of(node: yaml.Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], yaml.ScalarNode]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield path, key
            yield from keys_of(value, (*path, key.value))


def mistyped(key: str, generator: random.Random) -> str:
    """Return the key with one random edit of a letter."""
    at, letter = generator.randrange(len(key)), generator.choice(ascii_lowercase)
    before, here, after = key[:at], key[at], key[at + 1 :]
    return generator.choice(
        [
            before + after,
            before + here + here + after,
            before + after[:1] + here + after[1:],
            before + letter + after,
            before + letter + here + after,
        ]
    )


def names_at(path: tuple[str, ...]) -> set[str]:
    """Return every key that any task accepts below this path."""
    section: type[BaseModel] = Recipe
    for key in path:
        section = next(iter(sections_in(section.model_fields[key].annotation)), section)
    names = set(section.model_fields)
    if issubclass(section, LibrarySection):
        names |= {name for task in ("sft", "sequence_classification") for name in section.library(task).arguments()}
    return names


def refusal(folder: Path, recipe: Path, dotted: str, key: yaml.ScalarNode, typed: str) -> dict:
    """Load a recipe with one misspelled key, and return the message."""
    text = recipe.read_text(encoding="utf-8")
    file = folder / recipe.name
    file.write_text(text[: key.start_mark.index] + typed + text[key.end_mark.index :], encoding="utf-8")
    place = f"{file}:{key.start_mark.line + 1}:{key.start_mark.column + 1}: {dotted}: unknown key"
    start = time.perf_counter()
    try:
        load_recipe(file)
        lines = ["accepted"]
    except RecipeError as error:
        lines = str(error).splitlines()
    seconds = time.perf_counter() - start
    line = next((line for line in lines if line.startswith(place)), "")
    return {
        "recipe": recipe.name,
        "original": key.value,
        "message": line or f"{dotted}: {lines}",
        "named": bool(line),
        "guessed": line == f"{place}; did you mean '{key.value}'?",
        "seconds": seconds,
    }


if __name__ == "__main__":
    drawn = mutations(random.Random(SEED))
    with tempfile.TemporaryDirectory() as folder:
        results = [refusal(Path(folder), *next(drawn)) for _ in range(WANTED)]
    print(json.dumps([results, "torch" in sys.modules]))
