"""Recognition of formats, and conversion of their rows."""

import json

import pytest

from eyas.data.formats import FORMATS, canonical, convert, recognize_format
from eyas.data.rows import RowError
from eyas.errors import DataError

ASKED = {"role": "user", "content": "2 + 2?"}
ANSWERED = {"role": "assistant", "content": "4"}
CHAT = [ASKED, ANSWERED]
WRONG = {"role": "assistant", "content": "5"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"of": [1, {"b": None}], "ü": 2.5}}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
PAIR = {"prompt": "2 + 2?", "completion": "4"}

EXAMPLES = {
    "messages": {"messages": [{"role": "system", "content": "Be brief."}, *CHAT]},
    "sharegpt": {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    "alpaca": {"instruction": "Add.", "input": "2 and 2", "output": "4"},
    "prompt_completion": PAIR,
    "text": {"text": "The hill."},
    "labelled_text": {"text": "The hill.", "label": "place"},
    "preference": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "unpaired_preference": {**PAIR, "label": True},
    "token_labels": {"tokens": ["New", "York", "!"], "tags": ["B-LOC", "I-LOC", "O"]},
    "seq2seq": {"source": "The hill.", "target": "Der Hügel."},
}

BECOMES = [
    ("messages", {"conversation": CHAT}, {"messages": CHAT}),
    ("messages", {"messages": CHAT, "id": 7, "tools": None}, {"messages": CHAT}),
    ("messages", {"messages": CHAT, "tools": json.dumps([TOOL])}, {"messages": CHAT, "tools": [TOOL]}),
    ("messages", {"messages": CHAT, "system": "Hm."}, {"messages": [{"role": "system", "content": "Hm."}, *CHAT]}),
    (
        "messages",
        {"messages": [ASKED | {"name": None}, ANSWERED | {"name": "Ann", "weight": 1}]},
        {"messages": [ASKED, ANSWERED | {"name": "Ann"}]},
    ),
    (
        "messages",
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "!"}]},
            ]
        },
        {"messages": [ASKED, {"role": "assistant", "content": "4!"}]},
    ),
    ("messages", {"messages": [ANSWERED | {"content": ""}, *CHAT]}, {"messages": [ANSWERED | {"content": ""}, *CHAT]}),
    (
        "sharegpt",
        {
            "system": "Use tools.",
            "conversations": [
                {"from": "human", "value": "2 + 2?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"of": [2, 2]}}'},
                {"from": "observation", "value": "4"},
                {"from": "gpt", "value": "4"},
            ],
            "tools": '[{"name": "add", "description": "Adds.", "parameters": {"type": "object"}}]',
        },
        {
            "messages": [
                {"role": "system", "content": "Use tools."},
                ASKED,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"of": [2, 2]}}}],
                },
                {"role": "tool", "content": "4"},
                ANSWERED,
            ],
            "tools": [TOOL],
        },
    ),
    (
        "alpaca",
        EXAMPLES["alpaca"],
        {"messages": [{"role": "user", "content": "Add.\n\n2 and 2"}, ANSWERED]},
    ),
    (
        "alpaca",
        {"instruction": "3 + 3?", "input": "", "output": "6", "system": "Add.", "history": [["2 + 2?", "4"]]},
        {
            "messages": [
                {"role": "system", "content": "Add."},
                *CHAT,
                {"role": "user", "content": "3 + 3?"},
                {"role": "assistant", "content": "6"},
            ]
        },
    ),
    (
        "preference",
        {"chosen": CHAT, "rejected": [ASKED, WRONG]},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [WRONG]},
    ),
    (
        "preference",
        {"prompt": "2 + 2?", "chosen": CHAT, "rejected": [ASKED, WRONG]},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [WRONG]},
    ),
    (
        "preference",
        {"prompt": [ASKED], "chosen": CHAT, "rejected": [ASKED, WRONG]},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [WRONG]},
    ),
    (
        "preference",
        {"chosen": "Human: 2 + 2? Robot: 4", "rejected": "Human: 2 + 2? Robot: 5"},
        {"prompt": "Human: 2 + 2? Robot:", "chosen": " 4", "rejected": " 5"},
    ),
    ("token_labels", {"tokens": ["a"], "ner_tags": [3], "pos_tags": [7]}, {"tokens": ["a"], "tags": [3]}),
    ("seq2seq", {"source": "a site", "document": "Long.", "summary": "L."}, {"source": "Long.", "target": "L."}),
    ("labelled_text", {"text": "x", "label": 0}, {"text": "x", "label": 0}),
]


def message(**keys):
    return {"messages": [ASKED, ANSWERED, {"role": "assistant", **keys}]}


def called(call):
    return message(content=None, tool_calls=[call])


def turns(*pairs):
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in pairs]}


BAD_ROWS = [
    ("text", {"body": "x", "id": 1}, "no `text`; it has: body, id"),
    ("text", {}, "no `text`; it has: nothing"),
    ("text", {"text": None}, "`text` is null"),
    ("text", {"text": 5}, "`text` is a number (5), expected text"),
    ("text", {"text": True}, "`text` is true, expected text"),
    ("text", {"text": ["a"]}, "`text` is a list, expected text"),
    ("text", {"text": {"a": 1}}, "`text` is an object, expected text"),
    ("text", {"text": ""}, "`text` is empty"),
    ("text", {"text": " \n\t"}, "`text` is only whitespace"),
    ("text", {"text": "ab\ud800"}, "`text` cannot be written as UTF-8: character 3 is half of a surrogate pair"),
    ("labelled_text", {"text": "x"}, "no `label`; it has: text"),
    ("labelled_text", {"text": "x", "label": None}, "`label` is null"),
    ("labelled_text", {"text": "x", "label": 0.5}, "`label` is a number (0.5), expected a class"),
    ("labelled_text", {"text": "x", "label": [1]}, "`label` is a list, expected a class"),
    ("labelled_text", {"text": "x", "label": ""}, "`label` is empty"),
    ("labelled_text", {"text": "", "label": 1}, "`text` is empty"),
    ("messages", {"messages": []}, "`messages` is empty"),
    ("messages", {"messages": "hi"}, "`messages` is text, expected a list of messages"),
    ("messages", {"messages": ["hi"]}, "message 1 of `messages`: is text, expected an object"),
    ("messages", {"messages": [{"content": "hi"}]}, "message 1 of `messages`: no `role`; it has: content"),
    ("messages", {"messages": [ASKED, {"role": "assistant"}]}, "message 2 of `messages`: no `content`; it has: role"),
    ("messages", {"messages": [{"role": "bot", "content": "x"}]}, "`role` is 'bot', expected one of system, dev"),
    ("messages", {"messages": [{"role": "function", "content": "x"}]}, "`role` is 'function', expected one of"),
    ("messages", {"messages": [{"role": 1, "content": "x"}]}, "`role` is a number (1), expected text"),
    ("messages", {"messages": [ASKED]}, "`messages` has no assistant message"),
    ("messages", {"messages": [ASKED, ANSWERED | {"content": " "}]}, "`messages` has only empty assistant messages"),
    ("messages", {"messages": CHAT, "system": 5}, "`system` is a number (5), expected text"),
    ("messages", EXAMPLES["messages"] | {"system": "No."}, "`system` differs from the system message"),
    ("messages", {"messages": CHAT, "tools": "add"}, "`tools` is not JSON: Expecting value"),
    ("messages", {"messages": CHAT, "tools": "{}"}, "`tools` is an object, expected a list of tools"),
    ("messages", {"messages": CHAT, "tools": [{"type": "browser"}]}, "tool 1 of `tools`: no `name`"),
    ("messages", message(content=None), "message 3 of `messages`: `content` is null"),
    ("messages", message(content=5), "message 3 of `messages`: `content` is a number (5), expected text"),
    ("messages", message(content=[{"type": "image_url"}]), "part 1 of `content`: is of type 'image_url'; only text"),
    ("messages", message(content="\udfff"), "message 3 of `messages`: `content` cannot be written as UTF-8"),
    ("messages", message(content="", function_call={"name": "f"}), "`function_call` is OpenAI's old spelling"),
    ("messages", message(content="", thinking="\ud800"), "`thinking` cannot be written as UTF-8"),
    ("messages", {"messages": [ASKED | {"tool_calls": [CALL]}, ANSWERED]}, "a user message has `tool_calls`; only an"),
    ("messages", called("add"), "call 1 of `tool_calls`: is text, expected an object"),
    ("messages", called({"name": "add"}), "call 1 of `tool_calls`: no `arguments`; it has: name"),
    ("messages", called({"name": "add", "arguments": "{"}), "`arguments` is not JSON"),
    ("messages", called({"name": "add", "arguments": "[1]"}), "`arguments` is a list, expected an object"),
    ("messages", called({"name": "add", "arguments": '{"a": "\\ud800"}'}), "`arguments` cannot be written as UTF-8"),
    ("messages", called({"function": "add"}), "`function` is text, expected an object"),
    (
        "sharegpt",
        turns(("human", "hi"), ("narrator", "x")),
        "message 2 of `conversations`: `from` is 'narrator', expected",
    ),
    ("sharegpt", turns(("human", "hi")), "`conversations` has no assistant message"),
    ("sharegpt", turns(("human", None), ("gpt", "x")), "message 1 of `conversations`: `value` is null"),
    ("sharegpt", turns(("function_call", "add(2, 2)")), "message 1 of `conversations`: `value` is not JSON"),
    ("sharegpt", {"conversations": [{"from": "gpt"}]}, "no `value`; it has: from"),
    ("alpaca", {"instruction": "Add.", "output": ""}, "`output` is empty"),
    ("alpaca", {"instruction": "", "input": "x", "output": "y"}, "`instruction` is empty"),
    ("alpaca", {"instruction": "Add.", "input": 5, "output": "y"}, "`input` is a number (5), expected text"),
    ("alpaca", EXAMPLES["alpaca"] | {"history": [["a"]]}, "entry 1 of `history` is not a pair of texts"),
    ("prompt_completion", {"prompt": "", "completion": "4"}, "`prompt` is empty"),
    ("prompt_completion", {"prompt": [], "completion": [ANSWERED]}, "`prompt` is empty"),
    ("prompt_completion", {"prompt": "2 + 2?", "completion": "\n"}, "`completion` is only whitespace"),
    (
        "prompt_completion",
        {"prompt": 5, "completion": "4"},
        "`prompt` is a number (5), expected text or a list of messages",
    ),
    (
        "prompt_completion",
        {"prompt": [ASKED], "completion": "4"},
        "`prompt` is a list of messages and `completion` is text",
    ),
    ("prompt_completion", {"prompt": [ASKED], "completion": [ASKED]}, "`completion` has no assistant message"),
    ("unpaired_preference", {**PAIR, "label": 1}, "`label` is a number (1), expected true or false"),
    ("unpaired_preference", {**PAIR, "label": None}, "`label` is null"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "`chosen` and `rejected` are the same"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": ""}, "`rejected` is empty"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": [WRONG]}, "`chosen` is text and `rejected` is a list of"),
    (
        "preference",
        {"prompt": "a", "chosen": CHAT, "rejected": [ASKED, WRONG]},
        "`prompt` is text, and is not among the user messages",
    ),
    (
        "preference",
        {"prompt": [ASKED], "chosen": "4", "rejected": "5"},
        "`prompt` is a list of messages and `chosen` is",
    ),
    ("preference", {"chosen": "4", "rejected": "5"}, "no `prompt`, and `chosen` and `rejected` have no common prefix"),
    ("preference", {"chosen": CHAT, "rejected": [*CHAT, WRONG]}, "`chosen` is a prefix of the other answer"),
    (
        "preference",
        {"chosen": [ANSWERED, *CHAT], "rejected": [ANSWERED, ASKED | {"content": "3?"}, WRONG]},
        "differ first in a user message",
    ),
    ("token_labels", {"tokens": ["a"], "labels": [0, 1]}, "1 tokens, but 2 tags"),
    ("token_labels", {"tokens": [], "tags": []}, "`tokens` is empty"),
    ("token_labels", {"tokens": "a b", "tags": [0, 1]}, "`tokens` is text, expected a list of tokens"),
    ("token_labels", {"tokens": ["a", None], "tags": [0, 1]}, "token 2 is null, expected text"),
    (
        "token_labels",
        {"tokens": ["a", "b"], "tags": [0, None]},
        "tag 2 is null; tags are all whole numbers or all text",
    ),
    (
        "token_labels",
        {"tokens": ["a", "b"], "tags": ["O", "I-LOC"]},
        "tag 2 is I-LOC after O; it may follow only B-LOC",
    ),
    ("token_labels", {"tokens": ["a"], "tags": ["I-LOC"]}, "tag 1 is I-LOC after the start"),
    ("token_labels", {"tokens": ["a", "b"], "tags": ["B-PER", "I-LOC"]}, "tag 2 is I-LOC after B-PER"),
    ("token_labels", {"tokens": ["a"], "tags": ["NN"]}, "tag 1 is 'NN', expected O, B-… or I-…"),
    ("seq2seq", {"source": "a", "target": ""}, "`target` is empty"),
    ("seq2seq", {"document": "a"}, "no `source`; it has: document"),
]


@pytest.mark.parametrize("format", FORMATS)
def test_example_of_a_format_is_recognized_and_its_conversion_is_stable(format):
    assert EXAMPLES.keys() == FORMATS.keys()
    row = convert(EXAMPLES[format], format)

    assert recognize_format([EXAMPLES[format]]).format == format
    assert recognize_format([row]).format == canonical(format)
    assert convert(row, canonical(format)) == row


@pytest.mark.parametrize(("format", "row", "expected"), BECOMES)
def test_row_becomes_its_canonical_row_and_conversion_is_stable(format, row, expected):
    before = json.dumps(row)

    assert convert(row, format) == expected
    assert convert(expected, canonical(format)) == expected
    assert json.dumps(row) == before


@pytest.mark.parametrize(("format", "row", "reason"), BAD_ROWS)
def test_bad_row_is_refused_with_its_reason(format, row, reason):
    with pytest.raises(RowError) as refusal:
        convert(row, format)

    assert reason in str(refusal.value)


def test_table_of_bad_rows_covers_every_format():
    assert {format for format, _, _ in BAD_ROWS} == FORMATS.keys() and len(BAD_ROWS) >= 40


@pytest.mark.parametrize("spelt", [lambda arguments: arguments, json.dumps], ids=["object", "JSON text"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["under function", "flat"])
def test_arguments_of_a_call_are_kept(spelt, wrapped):
    function = CALL["function"] | {"arguments": spelt(CALL["function"]["arguments"])}
    call = {"id": "c1", "type": "function", "function": function} if wrapped else {"id": "c1", **function}

    (read,) = convert({"messages": [ASKED, CALLING | {"tool_calls": [call]}]}, "messages")["messages"][1]["tool_calls"]

    assert read == CALL | {"id": "c1"}


def test_other_keys_of_a_turn_are_kept_but_cannot_change_the_role():
    spoken = {"from": "gpt", "value": "4", "role": "user", "name": "Ann", "loss": None}

    assert convert({"conversations": [spoken]}, "sharegpt") == {"messages": [ANSWERED | {"name": "Ann"}]}


def test_implicit_prompt_is_the_one_that_trl_extracts():
    from trl.data_utils import extract_prompt

    rows = [row for format, row, _ in BECOMES if format == "preference" and "prompt" not in row]
    rows.append({"chosen": "Q: why? A: Yes", "rejected": "Q: why? A: Yellow"})
    assert len(rows) == 3
    for row in rows:
        assert convert(row, "preference") == extract_prompt(row)


def test_bad_first_row_does_not_hide_the_format():
    rows = [{"instruction": None}, {}, {"instruction": 5, "output": "x"}, *[EXAMPLES["alpaca"]] * 97]
    found = recognize_format(rows)

    assert found.format == "alpaca"
    assert found.why == "97 of 100 rows have `instruction` (text) and `output` (text)"


def test_evidence_of_a_clean_file_counts_every_row():
    assert recognize_format([EXAMPLES["messages"]] * 100).why == (
        "every one of 100 rows has `messages` (a list of {role, content})"
    )


def test_rows_with_some_missing_labels_are_labeled_text():
    rows = [EXAMPLES["labelled_text"]] * 90 + [{"text": "x", "label": None}] * 10

    assert recognize_format(rows).format == "labelled_text"
    assert recognize_format(rows[:10] + rows[-10:] * 9).format == "text"


def test_kto_differs_from_prompt_and_completion_by_its_boolean_label():
    assert recognize_format([{**PAIR, "label": False}]).format == "unpaired_preference"
    assert recognize_format([{**PAIR, "label": "good"}]).format == "prompt_completion"


@pytest.mark.parametrize("column", ["messages", "conversation", "conversations"])
def test_chat_is_recognized_by_its_messages_not_by_its_column(column):
    assert recognize_format([{column: CHAT}]).format == "messages"
    assert recognize_format([{column: EXAMPLES["sharegpt"]["conversations"]}]).format == "sharegpt"
    assert convert({column: EXAMPLES["sharegpt"]["conversations"]}, "sharegpt") == {"messages": CHAT}


def test_of_two_fitting_formats_the_first_is_chosen_and_the_other_named():
    rows = [EXAMPLES["alpaca"] | {"text": "Add. 2 and 2. 4"}] * 3

    assert recognize_format(rows).format == "alpaca"
    assert "; also matches `text`, which data.format can name" in recognize_format(rows).why
    assert "; 1 row matching `seq2seq`" in recognize_format([*rows, EXAMPLES["seq2seq"]]).why


def test_task_of_plain_text_takes_the_text_of_labeled_rows_and_reports_it():
    found = recognize_format([EXAMPLES["labelled_text"]] * 3, among=["messages", "text"])

    assert found.format == "text"
    assert (
        found.why == "every one of 3 rows has `text` (text); also matches `labelled_text`, which this task does not use"
    )


def test_task_of_messages_takes_formats_that_become_messages():
    assert recognize_format([EXAMPLES["sharegpt"]], among=["messages"]).format == "sharegpt"


def test_rows_of_a_format_outside_the_task_are_refused_with_both():
    with pytest.raises(DataError) as refusal:
        recognize_format(
            [EXAMPLES["preference"]] * 9 + [EXAMPLES["text"]], among=["messages", "prompt_completion", "text"]
        )

    text = str(refusal.value)
    assert text.startswith("rows are preference (9 of 10 rows have `chosen` (text or a list of {role, content}) and")
    assert "and this task trains on messages, prompt_completion or text:\n" in text


def test_refusal_gives_the_invalid_value_of_each_format():
    with pytest.raises(DataError) as refusal:
        recognize_format([{"text": "x", "label": 0.5}], among=["labelled_text"])

    assert "rows are text (the only row has `text` (text))" in str(refusal.value)
    assert "here `label` is a number (0.5), expected a class" in str(refusal.value)


def test_rows_that_fit_nothing_are_refused_with_their_columns_and_every_format():
    with pytest.raises(DataError) as refusal:
        recognize_format([{"question": "a", "answer": "b"}, {"question": "a", "hint": "c"}])

    text = str(refusal.value)
    assert text.startswith("no format fits the rows, which have question, answer, hint:")
    assert all(f"  {format} needs `" in text for format in FORMATS)
    assert "data.columns, as in {prompt: question, completion: answer}" in text


def test_data_columns_map_other_names_to_a_format():
    row, columns = {"question": "2 + 2?", "answer": "4"}, {"prompt": "question", "completion": "answer"}

    assert recognize_format([row], columns).format == "prompt_completion"
    assert "`question` (text or" in recognize_format([row], columns).why
    assert convert(row, "prompt_completion", columns) == PAIR


def test_column_named_in_the_recipe_decides_between_formats():
    row = {**PAIR, "sentence": "The hill.", "label": 1}

    assert recognize_format([row], {"text": "sentence"}).format == "labelled_text"
    assert convert(row, "labelled_text", {"text": "sentence"}) == {"text": "The hill.", "label": 1}


def test_row_without_the_column_that_the_recipe_names_is_bad():
    with pytest.raises(RowError, match="no `sentence`; it has: a, text"):
        convert({"a": 1, "text": "x"}, "text", {"text": "sentence"})
    with pytest.raises(RowError, match="no `functions`; it has: messages, tools"):
        convert({"messages": CHAT, "tools": [TOOL]}, "messages", {"tools": "functions"})


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"sentence": "text"}, "no format has a `sentence`; they have chosen, completion"),
        ({"text": "sentence"}, "text: no row has `sentence`; there are text"),
        ({"text": "text", "prompt": "text"}, "no format has `text` and `prompt` together"),
    ],
)
def test_unknown_names_in_data_columns_are_refused(columns, reason):
    with pytest.raises(DataError) as refusal:
        recognize_format([EXAMPLES["text"]], columns)

    assert f"data.columns: {reason}" in str(refusal.value)


def test_direction_of_translation_is_requested_and_then_followed():
    row = {"translation": {"en": "The hill.", "de": "Der Hügel."}}
    columns = {"source": "translation.en", "target": "translation.de"}

    with pytest.raises(DataError, match=r"data\.columns: \{source: translation\.en, target: translation\.de\}"):
        recognize_format([row], among=["seq2seq"])
    assert recognize_format([row], columns).format == "seq2seq"
    assert convert(row, "seq2seq", columns) == EXAMPLES["seq2seq"]
    with pytest.raises(RowError, match=r"no `translation\.de`; it has: translation"):
        convert({"translation": {"en": "x"}}, "seq2seq", columns)
