"""Preparation of rows: examples, trained tokens, splits and the report."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import stand_ins
from eyas.data.examples import LABELED, LANGUAGE, ModelLimits
from eyas.data.masks import IGNORED
from eyas.data.prepare import prepare
from eyas.data.splits import Splits
from eyas.errors import DataError
from eyas.recipe import Recipe

POSITIONS, VOCABULARY = 512, 400


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(file: Path, rows: list[Any]) -> dict[str, str]:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(file)}


def recipe_of(folder: Path, task: str = "sft", training: dict | None = None, **data: Any) -> Recipe:
    data = {"cache_directory": str(folder / "prepared"), **data}
    return Recipe.model_validate({"task": task, "model": {"name": "m"}, "data": data, "training": training or {}})


def prepared(models: dict[str, Path], recipe: Recipe, model: str = "falcon7b", **limits: int) -> Splits:
    tokenizer = AutoTokenizer.from_pretrained(models[model])
    spec = LABELED if recipe.task == "sequence_classification" else LANGUAGE
    return prepare(
        recipe, tokenizer, spec, ModelLimits(**{"positions": POSITIONS, "vocabulary_size": VOCABULARY} | limits)
    )


def texts(split: Any) -> list[str]:
    return [row["text"] for row in split.trained_rows()]


def test_plain_text_is_trained_whole_with_one_end_token(models, folder):
    train = write(folder / "a.jsonl", [{"text": "the falcon"}, {"text": "flew<|endoftext|>"}])

    splits = prepared(models, recipe_of(folder, train=train))

    end = AutoTokenizer.from_pretrained(models["falcon7b"]).eos_token_id
    for example in splits.train.examples:
        assert example["labels"] == [IGNORED, *example["input_ids"][1:]]
        assert example["input_ids"].count(end) == 1 and example["input_ids"][-1] == end
    assert splits.report.train.end_tokens == 2


def test_end_token_is_not_added_as_rendered_and_is_required_otherwise(models, folder):
    recipe = {"train": write(folder / "a.jsonl", [{"text": "the falcon"}])}
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])

    (example,) = prepared(models, recipe_of(folder, end_of_turn="as_rendered", **recipe)).train.examples
    assert tokenizer.decode(example["input_ids"]) == "the falcon"

    tokenizer.eos_token = None
    with pytest.raises(DataError, match="this tokenizer has no end token"):
        prepare(recipe_of(folder, **recipe), tokenizer, LANGUAGE, ModelLimits(POSITIONS, VOCABULARY))


def test_cache_that_cannot_be_written_is_refused(models, folder):
    (folder / "file").touch()
    recipe = recipe_of(folder, train=write(folder / "a.jsonl", [{"text": "a"}]), cache_directory=str(folder / "file/x"))

    with pytest.raises(DataError, match=r"data.cache_directory: .* cannot be written: Not a directory"):
        prepared(models, recipe)


@pytest.mark.parametrize("answers_only", [True, False])
def test_only_the_completion_of_a_prompt_is_trained(answers_only, models, folder):
    train = write(folder / "a.jsonl", [{"prompt": "the falcon", "completion": " flew over"}])
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])

    (example,) = prepared(models, recipe_of(folder, train=train, answers_only=answers_only)).train.examples

    trained = tokenizer.decode([label for label in example["labels"] if label != IGNORED])
    assert trained == (" flew over<|endoftext|>" if answers_only else " falcon flew over<|endoftext|>")
    assert tokenizer.decode(example["input_ids"]) == "the falcon flew over<|endoftext|>"


def test_answer_that_starts_inside_a_token_of_its_prompt_is_trained_whole_and_counted(models, folder):
    train = write(
        folder / "a.jsonl", [{"prompt": "the falcon ", "completion": "flew"}, {"prompt": "a", "completion": " b"}]
    )
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])

    split = prepared(models, recipe_of(folder, train=train))

    assert tokenizer.decode([i for i in split.train.examples[0]["labels"] if i != IGNORED]) == " flew<|endoftext|>"
    assert split.report.train.defects["joined"].first == [f"{train['path']}:1"]


def test_chats_train_all_answers_and_prompt_completion_the_completion(models, folder):
    messages = [
        {"role": role, "content": content} for role, content in zip(["user", "assistant"] * 2, "abcd", strict=True)
    ]
    train = write(folder / "a.jsonl", [{"messages": messages}])
    other = write(folder / "b.jsonl", [{"prompt": messages[:3], "completion": messages[3:]}])
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])

    splits = prepared(models, recipe_of(folder, train=[train, other]), "smollm2")

    trained = [tokenizer.decode([i for i in example["labels"] if i != IGNORED]) for example in splits.train.examples]
    assert trained == ["b<|im_end|>d<|im_end|>", "d<|im_end|>"]
    assert len({tuple(example["input_ids"]) for example in splits.train.examples}) == 1


def test_classes_by_name_become_indices_in_their_own_order(models, folder):
    rows = [{"text": f"the hill {row}", "label": "ab"[row % 2]} for row in range(4)]
    train = write(folder / "a.jsonl", rows)

    given = prepared(models, recipe_of(folder, "sequence_classification", train=train, labels=["b", "a"]), "distilbert")
    found = prepared(models, recipe_of(folder, "sequence_classification", train=train), "distilbert")

    assert (given.labels, list(given.train.examples["labels"])) == (["b", "a"], [1, 0, 1, 0])
    assert (found.labels, list(found.train.examples["labels"])) == (["a", "b"], [0, 1, 0, 1])
    assert found.report.train.classes == {"a": 2, "b": 2}


def test_class_outside_the_set_is_refused_with_its_line(models, folder):
    train = write(folder / "a.jsonl", [{"text": f"x {row}", "label": "abc"[row // 3]} for row in range(7)])
    recipe = recipe_of(folder, "sequence_classification", train=train, labels=["a", "b"])

    with pytest.raises(DataError, match=r"a\.jsonl:7: label 'c' is none of a, b \(data.labels\)"):
        prepared(models, recipe, "distilbert")


@pytest.mark.parametrize(("policy", "rows", "cut"), [("filter", 8, 0), ("truncate", 20, 12)])
def test_rows_longer_than_the_model_are_cut_or_filtered_and_counted(policy, rows, cut, models, folder):
    train = write(folder / "a.jsonl", [{"text": "hill " * (row + 1), "label": row % 2} for row in range(20)])
    longest = len(AutoTokenizer.from_pretrained(models["distilbert"])("hill " * 8)["input_ids"])
    recipe = recipe_of(folder, "sequence_classification", train=train, longer_than_model=policy)

    report = prepared(models, recipe, "distilbert", positions=longest).report.train

    assert (report.examples, report.defects["truncated"].count) == (rows, cut)
    assert report.defects["longer_than_model"].count == 12
    assert report.defects["longer_than_model"].first[0].endswith("a.jsonl:9")


def test_rows_longer_than_the_model_are_refused_when_the_recipe_says_so(models, folder):
    train = write(folder / "a.jsonl", [{"text": "hill " * (row + 1), "label": row % 2} for row in range(20)])
    recipe = recipe_of(folder, "sequence_classification", train=train, longer_than_model="refuse")

    with pytest.raises(DataError, match=r"train: \d+ rows longer than the model reads.*\n.*a\.jsonl:"):
        prepared(models, recipe, "distilbert", positions=6)


def test_subset_is_drawn_by_the_seed_from_the_rows_that_fit(models, folder):
    train = write(folder / "a.jsonl", [{"text": "hill " * (row + 1), "label": row % 2} for row in range(20)])
    subset = {"train": {**train, "rows": 5}, "longer_than_model": "filter"}

    def drawn(seed: int) -> list[str]:
        recipe = recipe_of(folder, "sequence_classification", {"seed": seed}, **subset)
        return texts(prepared(models, recipe, "distilbert", positions=12).train)

    assert len(drawn(1)) == 5 and drawn(1) == drawn(1) != drawn(2)
    assert all(len(text.split()) <= 12 for text in drawn(1))


def test_rows_that_only_the_template_refuses_are_counted_once(models, folder):
    chats = [[("user", "a"), ("assistant", "b")], [("user", "a<|im_end|>"), ("assistant", "b")]] * 2
    rows = [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in chats] + [
        {"messages": []}
    ]
    train = write(folder / "a.jsonl", rows)

    report = prepared(models, recipe_of(folder, train=train, bad_rows="skip"), "smollm2").report.train
    subset = recipe_of(folder, train={**train, "rows": 3}, bad_rows="skip")
    drawn = prepared(models, subset, "smollm2").report

    assert (report.rows_read, report.bad_rows, report.rows, report.examples) == (5, 3, 2, 2)
    assert "5 rows read, 3 of them bad and left out; 2 examples" in "\n".join(report.lines("train"))
    assert (drawn.train.rows_read, drawn.train.rows + drawn.train.bad_rows) == (5, 3 + 1) and "drawn" in drawn.text()


def test_more_rows_than_there_are_cannot_be_drawn(models, folder):
    train = write(folder / "a.jsonl", [{"text": "hill"}])

    with pytest.raises(DataError, match=r"a\.jsonl: has 1 row; 2 were requested"):
        prepared(models, recipe_of(folder, train={**train, "rows": 2}))


def test_held_out_rows_stay_held_out_when_a_row_is_added(models, folder):
    rows = [{"text": f"row {row}"} for row in range(300)]
    before = prepared(models, recipe_of(folder, train=write(folder / "a.jsonl", rows), holdout=0.2))
    rows.insert(7, {"text": "one more"})
    after = prepared(models, recipe_of(folder, train=write(folder / "a.jsonl", rows), holdout=0.2))

    held = set(texts(before.evaluation))
    assert before.report.evaluation.paths == [f"{folder}/a.jsonl (held out)"]
    assert before.report.train.rows_read + before.report.evaluation.rows_read == 300
    assert 30 < len(held) < 90 and len(held) + len(texts(before.train)) == 300
    assert held == set(texts(after.evaluation)) - {"one more"}
    assert before.report.overlap.trained_on == 0


def test_equal_rows_are_held_out_together(models, folder):
    rows = [{"text": f"row {row % 50}"} for row in range(200)]

    splits = prepared(models, recipe_of(folder, train=write(folder / "a.jsonl", rows), holdout=0.3))

    assert set(texts(splits.train)).isdisjoint(texts(splits.evaluation))
    assert splits.report.overlap.trained_on == 0


def test_holdout_of_no_row_is_refused(models, folder):
    train = write(folder / "a.jsonl", [{"text": "the same"}] * 10)

    with pytest.raises(DataError, match=r"data.holdout: of 10 rows, (0|10) would be held out"):
        prepared(models, recipe_of(folder, train=train, holdout=0.5))


def test_weighted_sources_are_mixed_in_their_shares(models, folder):
    many = write(folder / "a.jsonl", [{"text": f"a {row}"} for row in range(90)])
    few = write(folder / "b.jsonl", [{"text": f"b {row}"} for row in range(10)])
    sources = [{**many, "weight": 0.75}, {**few, "weight": 0.25}]

    first = texts(prepared(models, recipe_of(folder, train=sources)).train)
    everything = texts(prepared(models, recipe_of(folder, train=sources, stopping_strategy="all_exhausted")).train)

    assert (sum(t[0] == "a" for t in first), sum(t[0] == "b" for t in first)) == (30, 10) and len(set(first)) == 40
    assert (sum(t[0] == "a" for t in everything), sum(t[0] == "b" for t in everything)) == (90, 30)
    assert [text[0] for text in first[:8]].count("b") == 2


def test_sources_of_several_formats_and_columns_are_combined(models, folder):
    plain = write(folder / "a.jsonl", [{"body": "the hill"}]) | {"columns": {"text": "body"}}
    alpaca = write(folder / "b.jsonl", [{"instruction": "sum up", "input": "the hill", "output": "a hill"}])

    splits = prepared(models, recipe_of(folder, train=[plain, alpaca]), "smollm2")

    assert [format_.partition(" ")[0] for format_ in splits.report.train.formats] == ["text", "alpaca"]
    assert splits.report.train.examples == 2


def test_row_cut_before_its_answer_is_refused_with_its_line_or_left_out_below_the_limit(models, folder):
    rows = [{"prompt": "hill " * (30 if row == 3 else 2), "completion": "mice"} for row in range(10)]
    train = write(folder / "a.jsonl", rows)
    short = {"max_length": 16}

    with pytest.raises(DataError, match=r"train: 1 row without a token to train.*\n    .*a\.jsonl:4$"):
        prepared(models, recipe_of(folder, training=short, train=train))
    allowed = prepared(models, recipe_of(folder, training=short, train=train, limits={"unsupervised": 0.1}))

    assert allowed.report.train.examples == 9 and allowed.report.train.defects["unsupervised"].count == 1
    assert allowed.report.train.rows_read == 10


def test_rows_left_out_by_policy_are_kept_in_the_quarantine(models, folder):
    train = write(folder / "a.jsonl", [{"text": "hill"}, {"text": None}, {"text": "mice"}])

    splits = prepared(models, recipe_of(folder, train=train, bad_rows="skip"))

    assert splits.report.train.rows == 2
    (kept,) = (splits.cached / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(kept)["line"] == 2
    assert (splits.report.train.rows_read, splits.report.train.bad_rows) == (3, 1)


def test_packed_sequences_hold_every_example_once_and_predict_nothing_across_a_border(models, folder):
    train = write(folder / "a.jsonl", [{"text": "hill " * (1 + row % 5)} for row in range(23)])

    split = prepared(models, recipe_of(folder, train=train, training={"max_length": 16, "packing": True})).train

    assert sorted(row for sequence in split.sequences for row in sequence["rows"]) == list(range(23))
    for sequence in split.sequences:
        assert len(sequence["input_ids"]) == sum(sequence["seq_lengths"]) <= 16
        start = 0
        for length, row in zip(sequence["seq_lengths"], sequence["rows"], strict=True):
            document = slice(start, start + length)
            assert sequence["input_ids"][document] == split.examples[row]["input_ids"]
            assert sequence["labels"][document] == [IGNORED, *split.examples[row]["labels"][1:]]
            start += length


def defective(folder: Path) -> tuple[dict, dict]:
    """A thousand rows to train on and a hundred held out, each defect in rows that are known."""
    rows = [{"prompt": f"ask {row}:", "completion": f" hill {row}"} for row in range(1000)]
    rows[100]["prompt"] = "hill" * 60  # longer than 48 tokens, nothing left to train
    rows[200]["completion"] = "mice " * 60  # longer, its end is cut off
    rows[300]["prompt"] = "<|bos|><|bos|>ask"
    rows[400] = dict(rows[399])
    rows[500]["completion"] = "<|out|>"
    held_out = [{"prompt": f"test {row}:", "completion": f" mice {row}"} for row in range(100)]
    held_out[10] = dict(rows[600])
    held_out[20] = {"prompt": "ASK 601:", "completion": "  Hill, 601!"}
    return write(folder / "train.jsonl", rows), write(folder / "test.jsonl", held_out)


@pytest.fixture
def tokenizer_with_begin_token(models):
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    tokenizer.add_tokens(["<|out|>"])
    return tokenizer


def test_every_defect_of_a_thousand_rows_is_counted_and_placed(tokenizer_with_begin_token, folder):
    train, evaluation = defective(folder)
    limits = {"unsupervised": 1.0, "double_bos": 1.0, "outside_vocabulary": 1.0, "overlap": 1.0}
    recipe = recipe_of(folder, training={"max_length": 48}, train=train, evaluation=evaluation, limits=limits)
    tokenizer = tokenizer_with_begin_token

    splits = prepare(recipe, tokenizer, LANGUAGE, ModelLimits(POSITIONS, len(tokenizer) - 1))

    report = splits.report
    lines = {
        name: [int(place.rpartition(":")[2]) for place in found.first] for name, found in report.train.defects.items()
    }
    assert lines == {
        "truncated": [101, 201], "unsupervised": [101], "without_end": [201], "double_bos": [301],
        "outside_vocabulary": [501], "duplicates": [401], "joined": [], "injected": [], "longer_than_model": [],
    }  # fmt: skip
    assert {name: found.count for name, found in report.train.defects.items()} == {n: len(f) for n, f in lines.items()}
    assert (report.train.rows_read, report.train.examples, report.train.end_tokens) == (1000, 999, 998)
    examples = list(splits.train.examples)
    assert report.train.tokens == sum(len(example["input_ids"]) for example in examples)
    assert report.train.supervised_tokens == sum(label != IGNORED for e in examples for label in e["labels"])
    assert sum(report.train.lengths.histogram) == 999 and report.train.lengths.longest == 48
    assert report.overlap.exact.first == [f"{train['path']}:601 = {evaluation['path']}:11"]
    assert report.overlap.normalized.first == [f"{train['path']}:602 = {evaluation['path']}:21"]
    assert {d: f.count for d, f in report.evaluation.defects.items() if f.count} == {}


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("truncated", "2 rows longer than training.max_length, and cut"), ("unsupervised", "1 row without a token"),
        ("without_end", "1 row whose end token is cut off"), ("double_bos", "1 row beginning with two begin tokens"),
        ("outside_vocabulary", "1 row with a token id"), ("duplicates", "1 row equal to an earlier row"),
        ("overlap", "2 rows trained on too"),
    ],
)  # fmt: skip
def test_each_limit_of_the_recipe_stops_the_run_with_the_places(limit, reason, tokenizer_with_begin_token, folder):
    train, evaluation = defective(folder)
    names = ("truncated", "unsupervised", "without_end", "double_bos", "outside_vocabulary", "duplicates", "overlap")
    limits = {name: 0.0 if name == limit else 1.0 for name in names}
    recipe = recipe_of(folder, training={"max_length": 48}, train=train, evaluation=evaluation, limits=limits)
    tokenizer = tokenizer_with_begin_token

    with pytest.raises(DataError) as refused:
        prepare(recipe, tokenizer, LANGUAGE, ModelLimits(POSITIONS, len(tokenizer) - 1))

    first, *places = str(refused.value).splitlines()
    assert reason in first and f"data.limits.{limit} allows 0.00%" in first
    assert places and all(".jsonl:" in place for place in places)
    assert not list((folder / "prepared").glob("*/splits.json"))


def test_report_is_a_few_lines(tokenizer_with_begin_token, folder):
    train, evaluation = defective(folder)
    limits = {"unsupervised": 1.0, "double_bos": 1.0, "outside_vocabulary": 1.0, "overlap": 1.0}
    recipe = recipe_of(folder, training={"max_length": 48}, train=train, evaluation=evaluation, limits=limits)
    tokenizer = tokenizer_with_begin_token

    text = prepare(recipe, tokenizer, LANGUAGE, ModelLimits(POSITIONS, len(tokenizer) - 1)).report.text()

    assert "1,000 rows read; 999 examples" in text
    assert f"1 row equal to an earlier row: {folder}/train.jsonl:401" in text
    assert "1 as they are, 1 except for case and punctuation of 100 evaluation rows are trained on" in text
    assert len(text.splitlines()) <= 20


def test_similar_rows_are_searched_on_request_and_only_reported(models, folder):
    words = stand_ins.WORDS
    train = write(folder / "a.jsonl", [{"text": " ".join(words)}, {"text": "something else"}])
    evaluation = write(folder / "b.jsonl", [{"text": " ".join([*words[:-1], "there"])}])

    searched = prepared(models, recipe_of(folder, train=train, evaluation=evaluation, near_duplicates=0.7)).report
    plain = prepared(models, recipe_of(folder, train=train, evaluation=evaluation)).report

    assert searched.overlap.near.first == [f"{train['path']}:1 = {evaluation['path']}:1"] and plain.overlap.near is None
    assert "1 nearly of 1 evaluation rows are trained on" in searched.text()


def test_classes_of_a_hub_dataset_keep_its_own_order(models, folder, monkeypatch):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "stars": datasets.ClassLabel(names=["two", "one"])})
    table = datasets.Dataset.from_list([{"text": "a", "stars": 1}, {"text": "b", "stars": 0}], features=features)
    monkeypatch.setattr("eyas.data.sources.load_split", lambda *_: table)
    source = {"path": "some/reviews", "revision": "c" * 40}
    recipe = recipe_of(folder, "sequence_classification", train=source, columns={"label": "stars"})

    splits = prepared(models, recipe, "distilbert")

    assert (splits.labels, list(splits.train.examples["labels"])) == (["two", "one"], [1, 0])
