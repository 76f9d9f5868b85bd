"""Masks of conversations. Every expected text is written by hand, with ⟦ ⟧ around its trained parts."""

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from eyas.data.masks import IGNORED, Chat, Encoded, encode, encode_chats
from eyas.data.rows import RowError
from eyas.errors import DataError

TEMPLATES = Path(__file__).parent / "chat_templates"

DEEPSEEK_TOOLS = "calls▁begin call▁begin sep call▁end calls▁end outputs▁begin output▁begin output▁end outputs▁end"
DEEPSEEK = ["<｜User｜>", "<｜Assistant｜>", *(f"<｜tool▁{name}｜>" for name in DEEPSEEK_TOOLS.split())]
HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
COMMAND_R = ["START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM"]
CHATML = {"eos": "<|im_end|>", "others": ["<|im_start|>", "<|endoftext|>"]}
TOKENS = {
    "chatml": CHATML,
    "chatml_marked": CHATML,
    "command_r": {"bos": "<BOS_TOKEN>", "eos": "<EOS>", "others": [f"<|{name}_TOKEN|>" for name in COMMAND_R]},
    "deepseek_r1": {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>", "others": DEEPSEEK},
    "deepseek_v2": {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>"},
    "deepseek_v3": {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>", "others": DEEPSEEK},
    "falcon": {"eos": "<|endoftext|>"},
    "gemma2": {"bos": "<bos>", "eos": "<eos>", "others": ["<start_of_turn>", "<end_of_turn>"]},
    "gemma3": {"bos": "<bos>", "eos": "<eos>", "others": ["<start_of_turn>", "<end_of_turn>"]},
    "llama2": {"bos": "<s>", "eos": "</s>", "sentencepiece": True},
    "llama3": {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "others": HEADERS, "adds_bos": True},
    "llama31": {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "others": HEADERS, "adds_bos": True},
    "mistral_v1": {"bos": "<s>", "eos": "</s>", "sentencepiece": True},
    "mistral_v3": {
        "bos": "<s>",
        "eos": "</s>",
        "others": [f"[{slash}{name}]" for name in ["INST", "AVAILABLE_TOOLS", "TOOL_RESULTS"] for slash in ["", "/"]]
        + ["[TOOL_CALLS]"],
        "sentencepiece": True,
    },
    "phi3": {
        "bos": "<s>",
        "eos": "<|endoftext|>",
        "others": [AddedToken(f"<|{name}|>", rstrip=True) for name in ["system", "user", "assistant", "end"]],
    },
    "qwen25": CHATML,
    "qwen3": CHATML,
    "zephyr": {"bos": "<s>", "eos": "</s>", "sentencepiece": True},
}


@cache
def tokenizer_of(family):
    return with_template((TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8"), **TOKENS[family])


def with_template(template, eos=None, bos=None, others=(), sentencepiece=False, adds_bos=False, **named):
    """Return a small fast tokenizer with these special tokens, and this template."""
    special = [*filter(None, [bos, eos]), *others]
    inner = sentencepiece_like(special) if sentencepiece else byte_level(special)
    if adds_bos:
        pair = (bos, inner.token_to_id(bos))
        inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[pair])
    named |= {key: token for key, token in [("bos_token", bos), ("eos_token", eos)] if token}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **named)
    made.chat_template = template
    return made


def byte_level(special):
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        ["hi hello\n\n more, well!\n"] * 4, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_special_tokens(special)
    return inner


def sentencepiece_like(special):
    """Return a tokenizer that puts ▁ before every piece between special tokens, as Llama 2's does."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127))]
    merges = [("h", "i"), ("▁", "hi"), ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    vocabulary = {piece: id for id, piece in enumerate(dict.fromkeys([*pieces, *map("".join, merges)]))}
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    inner.add_special_tokens(special)
    return inner


def shown(tokenizer, encoded):
    """Return the text of an Encoded with ⟦ ⟧ around its trained parts."""
    runs = [[trained := False, []]]
    for id, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (IGNORED, id)
        if (label != IGNORED) != trained:
            trained = not trained
            runs.append([trained, []])
        runs[-1][1].append(id)
    return "".join(f"⟦{text_of(tokenizer, ids)}⟧" if trained else text_of(tokenizer, ids) for trained, ids in runs)


def text_of(tokenizer, ids):
    if isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.Metaspace):
        text = "".join(tokenizer.convert_ids_to_tokens(ids)).replace("▁", " ")
        return re.sub("(<0x..>)+", lambda found: bytes.fromhex(re.sub("[<>x]|0x", "", found[0])).decode(), text)
    return tokenizer.decode(ids, skip_special_tokens=False)


def encode_chat(tokenizer, messages, tools=None, first=0, **settings):
    """Return the texts of one conversation, or raise its RowError."""
    (encoded,) = encode_chats(tokenizer, [Chat(messages, tools, first)], **settings)
    if isinstance(encoded, RowError):
        raise encoded
    return encoded


def texts(family, messages, tools=None, **settings):
    tokenizer = tokenizer_of(family) if isinstance(family, str) else family
    return [shown(tokenizer, encoded) for encoded in encode_chat(tokenizer, messages, tools, **settings)]


def S(content):
    return {"role": "system", "content": content}


def U(content):
    return {"role": "user", "content": content}


def A(content, **more):
    return {"role": "assistant", "content": content, **more}


def calls(*arguments, content=None, name="add"):
    functions = [{"type": "function", "function": {"name": name, "arguments": given}} for given in arguments]
    return {"role": "assistant", "content": content, "tool_calls": functions}


def T(content):
    return {"role": "tool", "content": content}


TOOLS = [{"name": "add"}]
SINGLE = [U("hi"), A("hello")]
SYSTEM = [S("be kind"), *SINGLE]
MULTI = [*SINGLE, U("more"), A("well")]

CASES = {
    ("chatml", "system"): (
        SYSTEM,
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n⟦hello<|im_end|>⟧\n",
    ),
    ("chatml", "multi"): (
        MULTI,
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n⟦well<|im_end|>⟧\n",
    ),
    ("chatml", "a question at the end"): (
        [*SINGLE, U("more")],
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n<|im_start|>user\nmore<|im_end|>\n",
    ),
    ("chatml", "two answers in a row"): (
        [*SINGLE, A("well")],
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n"
        "<|im_start|>assistant\n⟦well<|im_end|>⟧\n",
    ),
    ("chatml", "an answer first"): (
        [A("hello"), U("hi")],
        "<|im_start|>assistant\n⟦hello<|im_end|>⟧\n<|im_start|>user\nhi<|im_end|>\n",
    ),
    ("chatml_marked", "system"): (
        SYSTEM,
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n⟦hello<|im_end|>⟧\n",
    ),
    ("chatml_marked", "multi"): (
        [*MULTI, U("ok")],
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n⟦well<|im_end|>⟧\n<|im_start|>user\nok<|im_end|>\n",
    ),
    ("llama2", "system"): (
        SYSTEM,
        "<s> [INST] <<SYS>>\nbe kind\n<</SYS>>\n\nhi [/INST]⟦ hello </s>⟧",
    ),
    ("llama2", "multi"): (
        MULTI,
        "<s> [INST] hi [/INST]⟦ hello </s>⟧<s> [INST] more [/INST]⟦ well </s>⟧",
    ),
    ("llama3", "system"): (
        SYSTEM,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦hello<|eot_id|>⟧",
    ),
    ("llama3", "multi"): (
        MULTI,
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦hello<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nmore<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦well<|eot_id|>⟧",
    ),
    ("llama31", "system"): (
        SYSTEM,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nbe kind<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦hello<|eot_id|>⟧",
    ),
    ("llama31", "tools"): (
        [U("hi"), calls({"a": 1}), T("2"), A("well")],
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|>"
        '<|start_header_id|>user<|end_header_id|>\n\nFunctions: [{"name": "add"}]\n\nhi<|eot_id|>'
        '<|start_header_id|>assistant<|end_header_id|>\n\n⟦{"name": "add", "parameters": {"a": 1}}<|eot_id|>⟧'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"2"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦well<|eot_id|>⟧",
    ),
    ("mistral_v1", "multi"): (
        MULTI,
        "<s> [INST] hi [/INST]⟦hello</s>⟧ [INST] more [/INST]⟦well</s>⟧",
    ),
    ("mistral_v3", "multi"): (
        MULTI,
        "<s>[INST] hi[/INST]⟦ hello</s>⟧[INST] more[/INST]⟦ well</s>⟧",
    ),
    ("mistral_v3", "tools"): (
        [U("hi"), calls({"a": 1}), T("2"), A("well")],
        '<s>[AVAILABLE_TOOLS] [{"name": "add"}][/AVAILABLE_TOOLS][INST] hi[/INST]'
        '⟦[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]</s>⟧'
        '[TOOL_RESULTS] {"content": 2}[/TOOL_RESULTS]⟦ well</s>⟧',
    ),
    ("mistral_v3", "tools that move"): (
        [U("hi"), calls({"a": 1}), T("2"), A("well"), U("more"), A("hello")],
        '<s>[AVAILABLE_TOOLS] [{"name": "add"}][/AVAILABLE_TOOLS][INST] hi[/INST]'
        '⟦[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]</s>⟧'
        '[TOOL_RESULTS] {"content": 2}[/TOOL_RESULTS]⟦ well</s>⟧',
        '<s>[INST] hi[/INST][TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]</s>'
        '[TOOL_RESULTS] {"content": 2}[/TOOL_RESULTS] well</s>'
        '[AVAILABLE_TOOLS] [{"name": "add"}][/AVAILABLE_TOOLS][INST] more[/INST]⟦ hello</s>⟧',
    ),
    ("gemma2", "multi"): (
        MULTI,
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n⟦hello<end_of_turn>⟧\n"
        "<start_of_turn>user\nmore<end_of_turn>\n<start_of_turn>model\n⟦well<end_of_turn>⟧\n",
    ),
    ("gemma3", "system and parts"): (
        [S("be kind"), U("hi"), A([{"type": "text", "text": "hello"}])],
        "<bos><start_of_turn>user\nbe kind\n\nhi<end_of_turn>\n<start_of_turn>model\n⟦hello<end_of_turn>⟧\n",
    ),
    # rstrip=True: a token takes the line break behind it along, and decodes without it.
    ("phi3", "system"): (
        SYSTEM,
        "<|system|>be kind<|end|><|user|>hi<|end|><|assistant|>⟦hello<|end|>⟧<|endoftext|>",
    ),
    ("phi3", "multi"): (
        MULTI,
        "<|user|>hi<|end|><|assistant|>⟦hello<|end|>⟧<|user|>more<|end|><|assistant|>⟦well<|end|>⟧<|endoftext|>",
    ),
    ("phi3", "an answer that begins with a space"): (
        [U("hi"), A(" hello")],
        "<|user|>hi<|end|><|assistant|>⟦hello<|end|>⟧<|endoftext|>",
    ),
    ("qwen25", "system"): (
        SYSTEM,
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n⟦hello<|im_end|>⟧\n",
    ),
    ("qwen25", "an answer first"): (
        [A("hello"), U("hi")],
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>assistant\n⟦hello<|im_end|>⟧\n<|im_start|>user\nhi<|im_end|>\n",
    ),
    ("qwen25", "tools"): (
        [S("be kind"), U("hi"), calls({"a": 1}, {"a": 2}, content="hello"), T("2"), T("3"), A("well")],
        '<|im_start|>system\nbe kind\n\n# Tools\n{"name": "add"}\nCall them inside <tool_call></tool_call><|im_end|>\n'
        "<|im_start|>user\nhi<|im_end|>\n"
        '<|im_start|>assistant\n⟦hello\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        '\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦well<|im_end|>⟧\n",
    ),
    ("qwen3", "system"): (
        SYSTEM,
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nhello<|im_end|>⟧\n",
    ),
    ("qwen3", "reasoning"): (
        [U("hi"), A("hello", reasoning_content="who?")],
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦<think>\nwho?\n</think>\n\nhello<|im_end|>⟧\n",
    ),
    ("qwen3", "reasoning that later questions strip"): (
        [U("hi"), A("<think>\nwho?\n</think>\n\nhello"), U("more"), A("well", reasoning_content="what?")],
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦<think>\nwho?\n</think>\n\nhello<|im_end|>⟧\n",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n⟦<think>\nwhat?\n</think>\n\nwell<|im_end|>⟧\n",
    ),
    ("qwen3", "tools"): (
        [U("hi"), calls('{"a": 1}') | {"reasoning_content": "sum"}, T("2"), A("well", reasoning_content="so")],
        '<|im_start|>system\n# Tools\n[{"name": "add"}]<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n'
        '<|im_start|>assistant\n⟦<think>\nsum\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n'
        "</tool_call><|im_end|>⟧\n<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nso\n</think>\n\nwell<|im_end|>⟧\n",
    ),
    ("falcon", "system"): (
        SYSTEM,
        "be kind\n\nUser: hi\n\nFalcon:⟦ hello<|endoftext|>⟧",
    ),
    ("falcon", "multi"): (
        [*MULTI, U("ok")],
        "User: hi\n\nFalcon:⟦ hello<|endoftext|>⟧\n\nUser: more\n\nFalcon:⟦ well<|endoftext|>⟧\n\nUser: ok",
    ),
    ("zephyr", "system"): (
        SYSTEM,
        " <|system|>\nbe kind</s> \n<|user|>\nhi</s> \n<|assistant|>\n⟦hello</s>⟧ \n",
    ),
    ("zephyr", "multi"): (
        MULTI,
        " <|user|>\nhi</s> \n<|assistant|>\n⟦hello</s>⟧ \n<|user|>\nmore</s> \n<|assistant|>\n⟦well</s>⟧ \n",
    ),
    ("deepseek_v2", "system"): (
        SYSTEM,
        "<｜begin▁of▁sentence｜>be kind\n\nUser: hi\n\nAssistant:⟦ hello<｜end▁of▁sentence｜>⟧",
    ),
    ("deepseek_v2", "multi"): (
        MULTI,
        "<｜begin▁of▁sentence｜>User: hi\n\nAssistant:⟦ hello<｜end▁of▁sentence｜>⟧"
        "User: more\n\nAssistant:⟦ well<｜end▁of▁sentence｜>⟧",
    ),
    ("deepseek_v3", "multi"): (
        MULTI,
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>⟦hello<｜end▁of▁sentence｜>⟧"
        "<｜User｜>more<｜Assistant｜>⟦well<｜end▁of▁sentence｜>⟧",
    ),
    # The tool call's own closing tokens are special here, and not the end of the turn.
    ("deepseek_v3", "tools"): (
        [U("hi"), calls('{"a": 1}'), T("2"), A("well")],
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>⟦<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"
        '<｜tool▁sep｜>add\n{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>⟧'
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>2<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
        "⟦well<｜end▁of▁sentence｜>⟧",
    ),
    ("deepseek_r1", "system"): (
        SYSTEM,
        "<｜begin▁of▁sentence｜>be kind<｜User｜>hi<｜Assistant｜>⟦hello<｜end▁of▁sentence｜>⟧",
    ),
    ("deepseek_r1", "multi"): (
        [U("hi"), A("<think>\nwho?\n</think>hello"), U("more"), A("<th>well</th>")],
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>⟦hello<｜end▁of▁sentence｜>⟧"
        "<｜User｜>more<｜Assistant｜>⟦<th>well</th><｜end▁of▁sentence｜>⟧",
    ),
    ("command_r", "system"): (
        SYSTEM,
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>be kind<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦hello<|END_OF_TURN_TOKEN|>⟧",
    ),
    ("command_r", "multi"): (
        MULTI,
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦hello<|END_OF_TURN_TOKEN|>⟧"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>more<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦well<|END_OF_TURN_TOKEN|>⟧",
    ),
}


def offered(case):
    return TOOLS if case.startswith("tools") else None


@pytest.mark.parametrize(("family", "case"), CASES)
def test_exactly_the_answers_and_their_ends_are_trained(family, case):
    messages, *expected = CASES[family, case]

    assert texts(family, messages, offered(case)) == expected


def test_every_template_has_a_case():
    families = {file.stem for file in TEMPLATES.glob("*.jinja")}

    assert len(families) >= 15
    assert families == {family for family, _ in CASES} == TOKENS.keys()


@pytest.mark.parametrize(("family", "case"), CASES)
def test_tokens_equal_those_of_apply_chat_template(family, case):
    messages, *_ = CASES[family, case]
    tokenizer = tokenizer_of(family)
    *_, last = encode_chat(tokenizer, messages, offered(case), add_missing_end=False)

    assert last.input_ids == tokenizer.apply_chat_template(messages, tools=offered(case))["input_ids"]


CONVERSATIONS = [SINGLE, MULTI, [U("hi"), A("")], [U("hi"), A("hello\n")], [U("¿qué?"), A("日本 🦅")]]


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=lambda messages: f"{messages[-1]['content']!r}")
@pytest.mark.parametrize("family", TOKENS)
def test_each_answer_is_trained_once_with_one_end(family, messages):
    tokenizer = tokenizer_of(family)
    answers = [message["content"] for message in messages if message["role"] == "assistant"]

    encoded = encode_chat(tokenizer, messages)

    trained = [part for one in encoded for part in re.findall("⟦(.*?)⟧", shown(tokenizer, one), re.DOTALL)]
    assert [len(one.ends) for one in encoded] == [one.turns for one in encoded]
    assert sum(one.turns for one in encoded) == len(trained) == len(answers)
    for answer, part in zip(answers, trained, strict=True):
        ends = [id for id in tokenizer(part, add_special_tokens=False)["input_ids"] if id in special_ids(tokenizer)]
        assert len(ends) == 1
        assert part.endswith(tokenizer.convert_ids_to_tokens(ends)[0])
        assert answer.strip() in part


def special_ids(tokenizer):
    return {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}


@pytest.mark.parametrize("family", [family for family, named in TOKENS.items() if "bos" in named and family != "phi3"])
def test_text_starts_with_one_bos(family):
    tokenizer = tokenizer_of(family)
    if family == "zephyr":  # writes none
        tokenizer = with_template("{{ bos_token }}" + tokenizer.chat_template, **TOKENS[family])
    (encoded,) = encode_chat(tokenizer, SINGLE)

    assert encoded.input_ids[0] == tokenizer.bos_token_id
    assert encoded.input_ids.count(tokenizer.bos_token_id) == 1


def test_pad_token_that_is_the_end_token_is_still_trained():
    tokenizer = with_template(tokenizer_of("chatml").chat_template, pad_token="<|im_end|>", **CHATML)

    assert texts(tokenizer, SINGLE)[0].endswith("⟦hello<|im_end|>⟧\n")


def test_all_tokens_are_trained_without_answers_only():
    (encoded,) = encode_chat(tokenizer_of("falcon"), [*MULTI, U("ok")], answers_only=False)

    assert shown(tokenizer_of("falcon"), encoded) == (
        "⟦User: hi\n\nFalcon: hello<|endoftext|>\n\nUser: more\n\nFalcon: well<|endoftext|>\n\nUser: ok⟧"
    )
    assert (len(encoded.ends), encoded.turns) == (2, 2)


def test_rewritten_history_is_one_text_without_answers_only():
    (text,) = texts("qwen3", MULTI, answers_only=False)

    assert text == (
        "⟦<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\nwell<|im_end|>\n⟧"
    )


def test_rewritten_history_shares_a_text_where_it_can():
    third = [*MULTI, U("so?"), calls({"a": 1}) | {"reasoning_content": "sum"}, T("2"), A("ok", reasoning_content="so")]

    encoded = encode_chat(tokenizer_of("qwen3"), third)

    assert [one.turns for one in encoded] == [1, 1, 2]


def test_template_options_reach_the_template():
    (text,) = texts("qwen3", SINGLE, template_options={"enable_thinking": False})

    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n⟦hello<|im_end|>⟧\n")


def test_no_end_is_added_without_add_missing_end():
    (encoded,) = encode_chat(tokenizer_of("falcon"), MULTI, add_missing_end=False)

    assert shown(tokenizer_of("falcon"), encoded) == "User: hi\n\nFalcon:⟦ hello⟧\n\nUser: more\n\nFalcon:⟦ well⟧"
    assert (len(encoded.ends), encoded.turns) == (0, 2)


def test_added_end_is_followed_by_the_whitespace_of_the_template():
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + ' \n' }}{% endfor %}"
    tokenizer = with_template(template + "{{ 'assistant:' if add_generation_prompt }}", eos="<|endoftext|>")

    assert texts(tokenizer, SINGLE) == ["user: hi \nassistant:⟦ hello<|endoftext|>⟧ \n"]


def test_end_that_the_template_renders_only_before_another_message_is_not_doubled():
    template = (
        "{% for m in messages %}{{ m.role + ':' + m.content }}{{ eos_token if not loop.last }}{% endfor %}"
        "{{ eos_token + 'assistant:' if add_generation_prompt }}"
    )
    tokenizer = with_template(template, eos="</s>")

    assert texts(tokenizer, MULTI) == ["user:hi</s>assistant:⟦hello</s>⟧user:more</s>assistant:⟦well</s>⟧"]


def test_token_across_the_start_of_an_answer_is_trained():
    tokenizer = tokenizer_of_merges([(":", "h"), (":h", "e")], "{{ 'assistant:' if add_generation_prompt }}")

    assert texts(tokenizer, SINGLE) == ["user:hi<end>assistant⟦:hello<end>⟧"]


def test_space_of_the_prompt_is_not_trained_though_its_offsets_are_trimmed():
    tokenizer = tokenizer_of_merges([], "{{ 'assistant: ' if add_generation_prompt }}", answer=" ' + m.content")

    assert texts(tokenizer, SINGLE) == ["user:hi<end>assistant: ⟦hello<end>⟧"]


def tokenizer_of_merges(merges, prompt, answer="' + m.content"):
    """Return a byte-level tokenizer with these merges alone, that never splits words."""
    vocabulary = {piece: id for id, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet())])}
    vocabulary |= {"".join(merge): len(vocabulary) + id for id, merge in enumerate(merges)}
    inner = Tokenizer(models.BPE(vocabulary, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    each = "m.role + ':" + answer + " + eos_token if m.role == 'assistant' else m.role + ':' + m.content + eos_token"
    tokenizer.chat_template = "{% for m in messages %}{{ " + each + " }}{% endfor %}" + prompt
    return tokenizer


def test_empty_answer_does_not_end_before_it_starts():
    tokenizer = tokenizer_of_merges([], "{{ 'assistant: ' if add_generation_prompt }}", answer=" ' + m.content")
    tokenizer.chat_template = tokenizer.chat_template.replace("+ eos_token if", "if")

    assert texts(tokenizer, [U("hi"), A("")]) == ["user:hi<end>assistant: ⟦<end>⟧"]


def test_token_that_strips_whitespace_ends_where_the_template_put_it():
    others = [AddedToken("<|end|>", lstrip=True, rstrip=True), AddedToken("<|user|>", lstrip=True)]
    template = "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '\n' }}{{ m.content + '  <|end|> \n' }}"
    tokenizer = with_template(template + "{% endfor %}{{ '\n' if add_generation_prompt }}", eos="</s>", others=others)

    assert texts(tokenizer, MULTI) == ["<|user|>hi<|end|>⟦hello<|end|>⟧<|user|>more<|end|>⟦well<|end|>⟧"]
    assert len(encode_chat(tokenizer, [U("hi"), A("")])[0].ends) == 1


def test_empty_tools_and_null_keys_are_ignored():
    spelled = [{**message, "tool_calls": None, "name": None} for message in SINGLE]
    template = EACH.replace("{{", "{{ ('named ' if 'name' in m else '') + ", 1) + ASK

    assert texts("llama31", spelled, []) == texts("llama31", SINGLE)
    assert "named" not in texts(with_template(template, **CHATML), spelled)[0]


def test_prefix_of_a_sentencepiece_answer_is_trained():
    template = "{% for m in messages %}{{ '[' + m.role + ']' + m.content + eos_token }}{% endfor %}"
    prompt = "{{ '[assistant]' if add_generation_prompt }}"
    named = {"eos": "</s>", "others": ["[user]", "[assistant]"], "sentencepiece": True}

    assert texts(with_template(template + prompt, **named), [U("hi"), A("well")]) == [
        "[user] hi</s>[assistant]⟦ well</s>⟧"
    ]


def test_marks_are_used_and_cut_after_the_end():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and not m.skipped %}"
        "{% generation %}{{ m.content + '<|im_end|>\n' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    )
    tokenizer = with_template(template, **CHATML)

    (encoded,) = encode_chat(tokenizer, [U("hi"), A("hello", skipped=True), U("more"), A("well")])

    assert shown(tokenizer, encoded) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n⟦well<|im_end|>⟧\n"
    )
    assert (len(encoded.ends), encoded.turns) == (1, 1)


def test_marks_without_any_end_token_get_one_each():
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + '\n' }}"
        "{% else %}A: {% generation %}{{ m.content + '\n' }}{% endgeneration %}{% endif %}{% endfor %}"
    )

    assert texts(with_template(template, eos="</s>"), MULTI) == ["Q: hi\nA:⟦ hello</s>⟧\nQ: more\nA:⟦ well</s>⟧\n"]


def test_two_marks_of_one_turn_are_one_answer():
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + '\n' }}{% else %}"
        "{% generation %}why{% endgeneration %} A: {% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}"
        "{% endif %}{% endfor %}"
    )
    tokenizer = with_template(template, eos="</s>")

    (encoded,) = encode_chat(tokenizer, MULTI)

    assert shown(tokenizer, encoded) == "Q: hi\n⟦why⟧ A:⟦ hello</s>⟧Q: more\n⟦why⟧ A:⟦ well</s>⟧"
    assert (len(encoded.ends), encoded.turns) == (2, 2)


REFUSED_ROWS = {
    "an end in an answer": ([U("hi"), A("hel<|im_end|>lo")], "message 2 .assistant. contains '<|im_end|>'"),
    "an end after an answer": ([U("hi"), A("hello<|im_end|>")], "message 2 .assistant. contains '<|im_end|>'"),
    "an end in an earlier answer": ([U("hi"), A("a<|im_end|>"), U("b"), A("c")], "message 2 .assistant. contains"),
    "a turn in an answer": ([U("hi"), A("<|im_start|>user\nmore")], "message 2 .assistant. contains '<|im_start|>'"),
    "a turn in a question": (
        [U("hi<|im_end|>\n<|im_start|>system"), A("no")],
        "message 1 .user. contains '<|im_end|>'",
    ),
    "a token in a question": ([U("what is <|endoftext|>?"), A("hello")], "message 1 .user. contains '<|endoftext|>'"),
    "a turn in a result": ([*SINGLE, T("<|im_start|>"), A("so")], "message 3 .tool. contains '<|im_start|>'"),
    "a call that is not written": (
        [U("hi"), calls({"a": 1}, content="")],
        "this chat template cannot write tool calls",
    ),
    "parts that cannot be added": (
        [U("hi"), A([{"type": "text", "text": "hello"}])],
        "cannot render this conversation",
    ),
}


@pytest.mark.parametrize("case", REFUSED_ROWS)
def test_row_that_cannot_be_trained_on_is_refused(case):
    messages, reason = REFUSED_ROWS[case]

    with pytest.raises(RowError, match=reason.replace("|", r"\|")):
        encode_chat(tokenizer_of("chatml"), messages)


@pytest.mark.parametrize(
    ("family", "messages", "reason"),
    [
        ("gemma2", SYSTEM, "System role not supported"),
        ("mistral_v1", SYSTEM, "Conversation roles must alternate user/assistant"),
        ("mistral_v3", SYSTEM, "Only user and assistant roles are supported"),
        ("llama31", [U("hi"), calls({"a": 1}, {"a": 2})], "only supports single tool-calls at once"),
    ],
)
def test_template_that_refuses_a_row_is_quoted(family, messages, reason):
    with pytest.raises(RowError, match=reason):
        encode_chat(tokenizer_of(family), messages)


def test_answer_may_contain_special_tokens_that_end_and_start_no_turn():
    named = CHATML | {"others": [*CHATML["others"], "[THINK]", "[/THINK]"]}
    tokenizer = with_template(tokenizer_of("chatml").chat_template, **named)

    (text,) = texts(tokenizer, [U("hi"), A("[THINK]who?[/THINK]"), U("more"), A("[THINK]what?[/THINK]well")])

    assert "⟦[THINK]who?[/THINK]<|im_end|>⟧" in text
    assert "⟦[THINK]what?[/THINK]well<|im_end|>⟧" in text


def test_end_token_of_line_breaks_is_added_and_allowed_in_text():
    tokenizer = with_template(tokenizer_of("falcon").chat_template.replace("\\n\\n", "\\n"), eos="\n\n")
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)

    assert texts(tokenizer, [U("hi\n\nyou"), A("hello")]) == ["User: hi\n\nyou\nFalcon:⟦ hello\n\n⟧"]


def test_special_token_in_a_tool_is_refused():
    with pytest.raises(RowError, match=r"tools contains '<\|im_end\|>'"):
        encode_chat(tokenizer_of("qwen25"), SINGLE, [{"name": "add", "description": "ends<|im_end|>"}])


def test_arguments_that_would_be_quoted_twice_are_refused():
    with pytest.raises(RowError, match="as a quoted string, for they are JSON text; use an object instead"):
        encode_chat(tokenizer_of("qwen25"), [U("hi"), calls('{"a": 1}')])


def test_content_that_a_tool_call_displaces_is_refused():
    with pytest.raises(RowError, match="does not render the content of message 2"):
        encode_chat(tokenizer_of("llama31"), [U("hi"), calls({"a": 1}, content="let me see")])


def test_parts_that_the_template_prints_as_a_list_are_refused():
    tokenizer = with_template("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", eos="</s>")

    with pytest.raises(RowError, match="a list of parts, which the chat template prints as a list"):
        encode_chat(tokenizer, [U("hi"), A([{"type": "text", "text": "hello"}])])


EACH = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
ASK = "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
MARKED = "{% generation %}{{ m.content }}{% endgeneration %}"
BROKEN = {
    "syntax": ("{% for m in messages %}{{ m.content }", "cannot render this conversation"),
    "an unknown tag": ("{% frobnicate %}", "unknown tag 'frobnicate'"),
    "an unknown filter": ("{{ messages | frobnicate }}", "No filter named 'frobnicate'"),
    "refuses everything": ("{{ raise_exception('no chats here') }}", "no chats here"),
    "an undefined variable": ("{{ config.name }}" + EACH + ASK, "'config' is undefined"),
    "counts the messages": ("{{ messages | length }} messages\n" + EACH + ASK, "'1 messages.* became '2 messages"),
    "another history before the last answer": (
        "{% if messages[-1].role == 'assistant' %}answered\n{% endif %}" + EACH + ASK,
        "changes the text before message . .assistant. once the answer is there",
    ),
    "another generation prompt history": (
        "{{ 'now answer\n' if add_generation_prompt }}" + EACH + ASK,
        "changes the text before message . .assistant. once the answer is there",
    ),
    "the time": (
        "{{ strftime_now('%H:%M:%S.%f') }}" + EACH + ASK,
        "changes the text before message . .assistant. once the answer is there",
    ),
    "upper case": (EACH.replace("m.content", "m.content | upper") + ASK, "'hello' is not in 'HELLO"),
    "no answers": (EACH.replace("messages %}", "messages if m.role == 'user' %}") + ASK, "'hello' is not in ''"),
    "empty answers": (EACH.replace("m.content", "(m.content if m.role == 'user' else '')") + ASK, "'hello' is not in"),
    "only the first message": (EACH.replace("messages %}", "messages[:1] %}") + ASK, "'hello' is not in ''"),
    "the answer before the question": (
        EACH.replace("messages", "messages | reverse") + ASK,
        "changes the text before message . .assistant. once",
    ),
    "marks around nothing": (
        EACH.replace("{{", "{% if m.role == 'nobody' %}" + MARKED + "{% endif %}{{"),
        "marks enclose nothing",
    ),
    "empty marks": (EACH + "{% generation %}{% endgeneration %}", "does not render the content of message 2"),
    "marks around the question": (
        "{% for m in messages %}{% if m.role == 'user' %}" + MARKED + "{% else %}{{ m.content }}{% endif %}"
        "{{ eos_token }}{% endfor %}",
        "does not render the content of message 2",
    ),
    "marks around question and answer": (
        "{% for m in messages %}" + MARKED + "{{ eos_token }}{% endfor %}",
        "marks enclose 'hi<|im_end|>', which is not an answer",
    ),
    "marks around a part": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content[:2] }}{% endgeneration %}"
        "{{ m.content[2:] }}{% else %}{{ m.content }}{% endif %}{{ eos_token }}{% endfor %}",
        "leave out a part of the last answer",
    ),
    "marks where transformers loses count": (
        "{% for m in messages %}{% set text %}{{ m.role }} {% if m.role == 'assistant' %}" + MARKED + "{% endif %}"
        "{% endset %}{{ text + eos_token }}{% endfor %}",
        "leave out a part of the last answer|does not render the content",
    ),
    "marks before two kinds of end": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}" + MARKED + "{% endif %}"
        "{{ eos_token if loop.last else '<|endoftext|>' }}{% endfor %}",
        "'<|endoftext|>' after one answer is not the '<|im_end|>' after the last",
    ),
    "two ends": (
        EACH.replace("<|im_end|>", "<|im_end|>.<|im_end|>") + ASK,
        "'<|im_end|>' ends a turn and is also inside it",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_template_is_refused(case):
    template, reason = BROKEN[case]
    messages = MULTI if "two kinds" in case else SINGLE

    with pytest.raises(RowError) as caught:
        encode_chat(with_template(template, **CHATML), messages)

    assert re.search(reason.replace("<|", r"<\|").replace("|>", r"\|>"), str(caught.value))


def test_template_and_tokenizer_without_an_end_are_refused():
    tokenizer = with_template(tokenizer_of("falcon").chat_template)

    with pytest.raises(RowError, match="set the tokenizer's eos_token"):
        encode_chat(tokenizer, SINGLE)
    assert texts(tokenizer, SINGLE, add_missing_end=False) == ["User: hi\n\nFalcon:⟦ hello⟧"]


def test_end_token_that_the_tokenizer_splits_is_refused():
    tokenizer = with_template(tokenizer_of("chatml").chat_template, split_special_tokens=True, **CHATML)

    with pytest.raises(RowError, match=r"does not read '<\|im_end\|>' at the end of a turn as its token"):
        encode_chat(tokenizer, SINGLE)


def test_tokenizer_without_offsets_or_template_is_refused_once_for_all_rows():
    with pytest.raises(DataError, match="load the fast tokenizer"):
        encode_chats(SimpleNamespace(is_fast=False), [Chat(SINGLE)])
    with pytest.raises(DataError, match="chat_template is not set"):
        encode_chats(with_template(None, eos="</s>"), [Chat(SINGLE)])


def test_bad_rows_keep_their_places(monkeypatch):
    monkeypatch.setattr(encode, "CHATS_AT_A_TIME", 2)
    rows = [Chat(messages) for messages in (SINGLE, [U("hi")], [], [U("a<|im_end|>")], MULTI)]

    encoded = encode_chats(tokenizer_of("chatml"), rows)

    assert [type(one) for one in encoded] == [list, RowError, RowError, RowError, list]
    assert encoded[0] == encode_chat(tokenizer_of("chatml"), SINGLE)
    assert encoded[4] == encode_chat(tokenizer_of("chatml"), MULTI)
    assert encode_chats(tokenizer_of("chatml"), []) == []
    assert all(isinstance(one, Encoded) for one in encoded[0])


def test_one_answer_at_the_end_takes_two_renderings(monkeypatch):
    from transformers.utils import chat_template_utils

    rendered = []
    render = chat_template_utils.render_jinja_template
    monkeypatch.setattr(
        chat_template_utils, "render_jinja_template", lambda **given: rendered.append(given) or render(**given)
    )

    encode_chat(tokenizer_of("chatml"), SYSTEM)
    assert len(rendered) == 2
    encode_chat(tokenizer_of("chatml_marked"), SYSTEM)
    assert len(rendered) == 4


@pytest.mark.parametrize("family", ["chatml", "chatml_marked", "llama2", "qwen3"])
def test_given_answers_are_not_trained(family):
    both = texts(family, MULTI)
    tokenizer = tokenizer_of(family)

    (last,) = [shown(tokenizer, one) for one in encode_chat(tokenizer, MULTI, first=3)]

    assert "".join(both).count("⟦") == 2 and last.count("⟦") == 1
    assert last.replace("⟦", "").replace("⟧", "") == both[-1].replace("⟦", "").replace("⟧", "")
    assert last.endswith(both[-1].rpartition("⟦")[2])
    with pytest.raises(RowError, match="nothing to train"):
        encode_chat(tokenizer, [*MULTI, U("more")], first=4)
