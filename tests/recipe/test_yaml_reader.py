import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from eyas.recipe.yaml_reader import DEEPEST_LEVEL, LARGEST_BYTES, read_scalar, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("2E+4", 2e4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.5e-1", -0.05),
        ("16", 16),
        ("+3", 3),
        ("-1", -1),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
def test_a_scalar_has_its_yaml_1_2_value(text, value):
    scalar = read_yaml(f"key: {text}").value["key"]

    assert scalar == value
    assert type(scalar) is type(value)


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "No",
        "yes",
        "on",
        "off",
        "y",
        "n",
        "12:30",
        "1_000",
        "0x1f",
        "0o17",
        "2024-08-17",
        "2e-4x",
        "1e",
        "e5",
        "-",
        ".",
        "nan",
        ".inf",
        "=",
        "<<",
    ],
)
def test_a_yaml_1_1_literal_stays_a_word(word):
    assert read_scalar(word) == word


def test_a_quoted_or_block_number_stays_a_word():
    text = "single: '2e-4'\ndouble: \"true\"\nblock: |\n  16\nempty: ''\n"

    assert read_yaml(text).value == {"single": "2e-4", "double": "true", "block": "16\n", "empty": ""}


def test_a_key_is_always_text():
    assert read_yaml("1: a\nno: b\n~: c\n").value == {"1": "a", "no": "b", "~": "c"}


def test_a_merge_key_merges_nothing():
    assert read_yaml("<<: {a: 1}\nb: 2\n").value == {"<<": {"a": 1}, "b": 2}


def test_every_key_and_value_has_its_line_and_column():
    document = read_yaml("task: sft\ndata:\n  train: {path: a, rows: 3}\nprompts:\n  - first\n  -  second\n")

    assert document.keys == {
        ("task",): (1, 1),
        ("data",): (2, 1),
        ("data", "train"): (3, 3),
        ("data", "train", "path"): (3, 11),
        ("data", "train", "rows"): (3, 20),
        ("prompts",): (4, 1),
    }
    assert document.values[("task",)] == (1, 7)
    assert document.values[("data", "train", "rows")] == (3, 26)
    assert document.values[("prompts", 1)] == (6, 6)


@pytest.mark.parametrize(
    ("text", "position", "tag"),
    [
        ("a: !!python/object/apply:os.mkdir [here]", (1, 4), "tag:yaml.org,2002:python/object/apply:os.mkdir"),
        ("a:\n  - !!python/name:os.mkdir x", (2, 5), "tag:yaml.org,2002:python/name:os.mkdir"),
        ("a: !!int 3", (1, 4), "tag:yaml.org,2002:int"),
        ("a: !mine {b: 1}", (1, 4), "!mine"),
    ],
)
def test_a_tag_is_refused_and_never_constructed(text, position, tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    document = read_yaml(text)

    assert document.problems == [(position, f"tag {tag}: a recipe holds plain values; remove it")]
    assert plain(document.value)
    assert list(tmp_path.iterdir()) == []


def test_anchors_and_aliases_are_refused_at_their_place():
    document = read_yaml("a: &shared [1]\nb: *shared\n")

    assert document.problems == [
        ((1, 4), "anchor &shared: a recipe holds plain values; remove it"),
        ((2, 4), "alias *shared: a recipe holds plain values; write it out"),
    ]
    assert document.value == {"a": [1], "b": None}


BOMB = "a: &a [x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in pairwise("abcdefghij"))


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        (BOMB, (1, 4), "anchor &a"),
        ("a: " + "x" * 10_000_000, (1, 1), "a recipe of more than 256 KiB"),
        ("a: " + "é" * (LARGEST_BYTES // 2), (1, 1), "a recipe of more than 256 KiB"),
        ("[" * 1000 + "]" * 1000, (1, 1), "nested deeper than 20 levels at line 1"),
        ("- " * 1000 + "x", (1, 1), "nested deeper than 20 levels at line 1"),
        ("".join(" " * depth + "a:\n" for depth in range(500)), (1, 1), "nested deeper than 20 levels at line 22"),
        ("[" * 200_000, (1, 1), "nested deeper than 20 levels at line 1"),
    ],
    ids=["alias bomb", "ten megabytes", "bytes, not letters", "brackets", "dashes", "mappings", "unclosed brackets"],
)
def test_a_hostile_file_is_refused_in_a_tenth_of_a_second(text, position, expected):
    start = time.perf_counter()
    document = read_yaml(text)
    seconds = time.perf_counter() - start

    place, message = document.problems[0]
    assert place == position
    assert message.startswith(expected)
    assert seconds <= 0.1


def test_the_deepest_allowed_level_is_read():
    text = "[" * DEEPEST_LEVEL + "16" + "]" * DEEPEST_LEVEL

    value = read_yaml(text).value
    for _ in range(DEEPEST_LEVEL):
        (value,) = value

    assert value == 16
    assert read_yaml(f"[{text}]").problems


def test_a_duplicate_key_is_refused_with_both_lines():
    document = read_yaml("training:\n  seed: 1\n  max_steps: 3\n  seed: 2\n")

    assert document.problems == [((4, 3), "training.seed: set twice; first on line 2, remove one")]


def test_two_sections_may_have_the_same_key():
    assert read_yaml("a: {path: x}\nb: {path: y}\n").problems == []


def test_a_second_document_is_refused():
    document = read_yaml("a: 1\n---\nb: 2\n")

    assert document.problems == [((2, 1), "a second document; a recipe has one")]
    assert document.value == {"a": 1}


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("task: sft\ntraining:\n  betas: [0.9, 0.99\n", (4, 1)),
        ("task: 'sft\n", (2, 1)),
        ("task: sft: now\n", (1, 10)),
        ("task: sft\n  model: x\n", (2, 8)),
        ("training:\n\tseed: 1\n", (2, 1)),
        ("a: 1\nb\nc: 2\n", (3, 1)),
        ("a: \x07", (1, 4)),
    ],
    ids=["cut list", "cut quote", "two colons", "indented", "tab", "bare word", "control character"],
)
def test_invalid_yaml_has_one_problem_and_no_value(text, position):
    document = read_yaml(text)

    assert [place for place, _ in document.problems] == [position]
    assert document.value is None


def test_no_truncation_of_a_document_raises():
    text = "task: sft\nmodel: {name: 'x', dtype: float32}\ndata:\n  rows: [1, 2]\n  text: |\n    words\n"
    for length in range(len(text)):
        document = read_yaml(text[:length])

        assert plain(document.value)
        assert document.value is not None or document.problems or length == 0


def test_a_key_that_is_not_text_is_refused():
    assert read_yaml("[a, b]: 1\n").problems == [((1, 1), "a key must be text")]
    assert ((1, 3), "a key must be text") in read_yaml("? {a: 1}\n: 1\n").problems


def test_an_empty_text_has_no_value_and_no_problem():
    for text in ("", "\n\n", "# only a comment\n", "---\n"):
        document = read_yaml(text)

        assert (document.value, document.problems) == (None, [])


def test_a_very_long_integer_does_not_raise():
    document = read_yaml("seed: " + "9" * 5000)

    assert document.problems or document.value


def test_the_pure_python_parser_reads_the_same(monkeypatch):
    text = "a: [1, two, 3.0]\nb: {c: ~, d: 'x'}\n"
    with_library = read_yaml(text)
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)

    assert read_yaml(text) == with_library


def test_the_shipped_recipes_are_read_the_same_by_the_pure_python_parser(monkeypatch):
    texts = [file.read_text(encoding="utf-8") for file in Path(__file__).parents[2].glob("recipes/*.yaml")]
    with_library = [read_yaml(text) for text in texts]
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)

    assert len(texts) >= 7
    assert [read_yaml(text) for text in texts] == with_library


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str)
