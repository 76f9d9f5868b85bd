"""Recipes that would hang, exhaust or mislead their reader."""

import os
import threading
import time

import pytest

from eyas.errors import RecipeError
from eyas.recipe import load_recipe

VALID = "task: sft\nmodel: {name: owner/name}\ndata:\n  train: {path: rows.jsonl}\n"


def refusal(file, overrides=()):
    """Return the refusal of a recipe, which comes within seconds on a busy machine."""
    began = time.process_time()
    with pytest.raises(RecipeError) as error:
        load_recipe(file, overrides)
    assert time.process_time() - began < 4
    return str(error.value)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "recipe.yaml"


def pipe(file):
    os.mkfifo(file)


def link_to_a_pipe(file):
    os.mkfifo(file.with_name("pipe"))
    file.symlink_to(file.with_name("pipe"))


SPECIAL = {
    "a pipe": pipe,
    "a link to a pipe": link_to_a_pipe,
    "a folder": lambda file: file.mkdir(),
    "endless zeros": lambda file: file.symlink_to("/dev/zero"),
    "endless randomness": lambda file: file.symlink_to("/dev/urandom"),
    "an empty device": lambda file: file.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_a_file_is_read_as_a_recipe(kind, file):
    SPECIAL[kind](file)
    found = []

    reader = threading.Thread(target=lambda: found.append(refusal(file)), daemon=True)
    reader.start()
    reader.join(10)

    assert found == [f"{file}: is not a file; name a recipe"]


@pytest.mark.parametrize("size", [256 * 1024 + 1, 2**40])
def test_a_huge_file_is_refused_by_its_size_and_is_not_read(size, file):
    with file.open("wb") as stream:
        stream.truncate(size)

    assert refusal(file) == f"{file}: a recipe of more than 256 KiB; is this the right file?"


MANY = {
    "unknown keys of a library's section": (VALID + "training:\n", "  k{}: 1\n", 17_000, "training.k0: unknown key"),
    "unknown keys of our section": (VALID, "  k{}: 1\n", 17_000, "data.k0: unknown key"),
    "unknown sections": (VALID, "key_{}: 1\n", 17_000, "key_0: unknown key"),
    "one key": (VALID, "  k: 1\n", 30_000, "data.k: set twice; first on line 5, remove one"),
    "aliases": (VALID + "x: &a [1]\n", "k{}: [*a, *a, *a]\n", 9_000, "alias *a: a recipe holds plain values"),
    "tags": (VALID, "k{}: !!python/object:os.system 1\n", 6_000, "a recipe holds plain values; remove it"),
    "wrong sources": ("task: sft\nmodel: {name: a/b}\ndata:\n  train:\n", "  - {{p: a}}\n", 18_000, "p: unknown key"),
}


@pytest.mark.parametrize("what", MANY)
def test_thousands_of_mistakes_are_cut_short(what, file):
    head, line, count, first = MANY[what]
    file.write_text(head + "".join(line.format(number) for number in range(count)))
    assert file.stat().st_size < 256 * 1024

    lines = refusal(file).splitlines()

    assert len(lines) == 101 and lines[-1] == "… and more"
    assert any(first in line for line in lines)


def test_a_hundred_mistakes_less_one_are_all_listed(file):
    file.write_text(VALID + "".join(f"  k{number}: 1\n" for number in range(99)))

    assert len(refusal(file).splitlines()) == 99


BOMB = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*b{n - 1}, *b{n - 1}]\n" for n in range(1, 60)).replace("*b0", "*a")
DEEP = {
    "lists": ("training: " + "[" * 120_000, "nested deeper than 20 levels"),
    "mappings": ("training: " + "{a: " * 50_000, "nested deeper than 20 levels"),
    "block mappings": ("".join(" " * n + "a:\n" for n in range(600)), "nested deeper than 20 levels"),
    "lists of lists": ("training: " + "- " * 100_000, "not YAML"),
    "keys of keys": ("? " * 100_000 + "a", "nested deeper than 20 levels"),
    "billion laughs": (BOMB, "a recipe holds plain values"),
}


@pytest.mark.parametrize("what", DEEP)
def test_deep_and_expanding_recipes_are_refused_by_their_lines(what, file):
    text, message = DEEP[what]
    file.write_text(VALID + text)

    assert message in refusal(file)


@pytest.mark.parametrize("parts", [22, 200, 5_000, 60_000])
@pytest.mark.parametrize("value", ["1", "[1, 2]"])
def test_an_override_of_many_parts_is_refused_in_a_short_line(parts, value, file):
    file.write_text(VALID)

    (line,) = refusal(file, [".".join(["training"] * parts) + f"={value}"]).splitlines()

    assert line.startswith("override training.training.") and "nested deeper than 20 levels" in line and len(line) < 200


CONTROLS = {"a bell": "\a", "escape": "\x1b[2J", "backspace": "\b", "delete": "\x7f", "C1": "\x9b31m", "null": "\0"}


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize(
    ("text", "line", "column"), [("# {}", 5, 3), ("run_directory: a{}", 5, 17), ("é: 1\nü: {}", 6, 4)]
)
def test_a_control_character_is_reported_where_it_is_and_never_printed(name, text, line, column, file):
    file.write_text(VALID + text.format(CONTROLS[name]))

    found = refusal(file)

    assert found == f"{file}:{line}:{column}: control character U+{ord(CONTROLS[name][0]):04X}; remove it"


def test_an_override_with_a_control_character_names_it(file):
    file.write_text(VALID)

    found = refusal(file, ["run_directory=\x1b[2J"])

    assert "control character U+001B" in found and "\x1b" not in found and "\\x1b[2J" in found


@pytest.mark.parametrize("key", ["\\x1b[2J", "\\u202egnp", "\\x9b31m", "\\a"])
def test_an_escaped_control_character_is_never_printed(key, file):
    file.write_text(f'{VALID}"{key}": 1\nmodel: "{key}"\n')

    found = refusal(file)

    assert "unknown key" in found and all(character.isprintable() or character == "\n" for character in found)
