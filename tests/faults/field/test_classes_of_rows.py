"""Classes of rows are those that were meant: named, told apart, at least two."""

import pytest

from eyas.errors import DataError
from prepared_rows import prepared, rows_in, write_rows

TASK = "sequence_classification"


def labeled(tmp_path, labels, ending="jsonl"):
    if ending == "csv":
        file = tmp_path / "rows.csv"
        file.write_text("text,label\n" + "".join(f"hill {row},{label}\n" for row, label in enumerate(labels)))
        return file
    return write_rows(tmp_path / "rows.jsonl", [{"text": f"hill {i}", "label": one} for i, one in enumerate(labels)])


LOOK_ALIKE = [
    ("Movie ", "Movie"),
    ("Bad", "bad"),
    ("news\u00a0item", "news item"),
    ("caf\u00e9", "cafe\u0301"),
    ("ｎｅｗｓ", "news"),
    ("news\u200b", "news"),
    ("two  words", "two words"),
    ("STRASSE", "straße"),
]


@pytest.mark.parametrize("pair", LOOK_ALIKE, ids=map(repr, LOOK_ALIKE))
def test_classes_that_look_alike_are_refused_with_their_rows(pair, tmp_path):
    with pytest.raises(DataError) as refused:
        prepared(labeled(tmp_path, [pair[0], pair[1], pair[1], "else"]), tmp_path, TASK)

    message = str(refused.value)
    assert "(1 row)" in message and "(2 rows)" in message and "differ in case, spaces or Unicode spelling" in message


def test_tags_that_look_alike_are_refused_too(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["B-Loc", "B-LOC"]}]

    with pytest.raises(DataError, match=r"'B-Loc' .1 row. and 'B-LOC' .1 row."):
        prepared(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, "token_classification")


@pytest.mark.parametrize("pair", [("C", "C++"), ("1", "10"), ("a b", "ab"), ("é", "e")])
def test_classes_that_differ_otherwise_are_two_classes(pair, tmp_path):
    assert set(prepared(labeled(tmp_path, pair), tmp_path, TASK).labels) == set(pair)


def test_look_alikes_that_the_recipe_lists_are_two_classes(tmp_path):
    splits = prepared(labeled(tmp_path, ["a", "A"]), tmp_path, TASK, labels=["A", "a"])

    assert splits.report.train.classes == {"A": 1, "a": 1}


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (["a", "a"], {}),
        ([1, 1, 1], {}),
        ([True, True], {}),
        (["a", "a"], {"labels": ["a", "b"]}),
        ([0, 0], {"labels": ["a", "b"]}),
    ],
)
def test_rows_of_one_class_are_refused_before_training(labels, more, tmp_path):
    with pytest.raises(DataError, match=r"every row is of class '.*'; add rows of another class"):
        prepared(labeled(tmp_path, labels), tmp_path, TASK, **more)


def test_tags_of_one_class_are_refused_before_training(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "O"]}]

    with pytest.raises(DataError, match="every row is of class 'O'"):
        prepared(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, "token_classification")


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_numbers_of_listed_classes_are_their_names(ending, tmp_path):
    splits = prepared(labeled(tmp_path, [1, 0, 1], ending), tmp_path, TASK, labels=["neg", "pos"])

    assert [row["label"] for row in rows_in(splits.train)] == ["pos", "neg", "pos"]
    assert [example["labels"] for example in splits.train.examples] == [1, 0, 1]
    assert splits.report.train.classes == {"neg": 1, "pos": 2}


def test_numbers_of_listed_tags_are_their_names(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": [0, 1]}]

    splits = prepared(write_rows(tmp_path / "r.jsonl", rows), tmp_path, "token_classification", labels=["O", "B-X"])

    assert rows_in(splits.train)[0]["tags"] == ["O", "B-X"]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([1, 0], ["1", "0"], ["1", "0"]),
        (["3", "5"], ["5", "3"], ["3", "5"]),
        (["neg", "pos"], ["pos", "neg"], ["neg", "pos"]),
    ],
)
def test_a_name_is_never_read_as_the_number_of_another(labels, names, expected, tmp_path):
    splits = prepared(labeled(tmp_path, labels), tmp_path, TASK, labels=names)

    assert [splits.labels[example["labels"]] for example in splits.train.examples] == expected


@pytest.mark.parametrize("label", [2, -1, "2", True, "neutral"])
def test_a_number_or_name_outside_the_listed_classes_is_refused(label, tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:3: label .* is none of neg, pos \(data\.labels\)"):
        prepared(labeled(tmp_path, [0, 1, label]), tmp_path, TASK, labels=["neg", "pos"])


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["a"] * 95 + ["b"] * 5, "note: accuracy hides rare classes: b (5 of 100)"),
        (["a"] * 30 + ["b"] * 30 + ["c"] * 2, "note: accuracy hides rare classes: c (2 of 62)"),
        (["a"] * 3 + ["b"] * 2, None),
    ],
)
def test_a_rare_class_is_noted_in_the_report(labels, note, tmp_path):
    text = prepared(labeled(tmp_path, labels), tmp_path, TASK).report.text()

    assert (note in text) if note else "note:" not in text


def test_a_listed_class_without_rows_is_noted(tmp_path):
    report = prepared(labeled(tmp_path, ["a", "b"]), tmp_path, TASK, labels=["a", "b", "c"]).report

    assert report.train.classes == {"a": 1, "b": 1, "c": 0} and "rare classes: c (0 of 2)" in report.text()
