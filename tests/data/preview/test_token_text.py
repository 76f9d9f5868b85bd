"""Text of each token."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import stand_ins
from eyas.data.preview.token_text import token_texts, visible


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    stand_ins.tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "text", ["the falcon flew", "né 🦅 猛禽", "a\n\n  b\t", "�", "🦅 cut \N{REPLACEMENT CHARACTER}x", ""]
)
def test_texts_of_the_tokens_are_the_text(text, byte_level):
    ids = byte_level(text)["input_ids"]

    texts = token_texts(ids, byte_level)

    assert len(texts) == len(ids) and "".join(texts) == text


def test_character_of_several_tokens_belongs_to_the_last(byte_level):
    ids = byte_level("a🦅b")["input_ids"]

    assert len(ids) == 6
    assert token_texts(ids, byte_level) == ["a", "", "", "", "🦅", "b"]


def test_unfinished_last_character_is_shown_as_a_replacement_character(byte_level):
    ids = byte_level("a🦅")["input_ids"][:-1]

    assert token_texts(ids, byte_level)[-1].startswith("\N{REPLACEMENT CHARACTER}")


def test_special_tokens_are_shown(byte_level):
    assert token_texts([0, *byte_level("a")["input_ids"], 0], byte_level) == ["<|endoftext|>", "a", "<|endoftext|>"]


def test_words_of_sentencepiece_keep_the_space_between_them():
    inner = Tokenizer(models.WordLevel({"▁the": 0, "▁falcon": 1, "s": 2}, unk_token="s"))
    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)

    assert tokenizer.decode([1]) == "falcon"
    assert token_texts([0, 1, 2, 0], tokenizer) == ["the", " falcon", "s", " the"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a↵\nb"),
        ("a\tb\r\n", "a⇥b<U+000D>↵\n"),
        ("\x1b[31m\x07\x7f", "<U+001B>[31m<U+0007><U+007F>"),
        ("\x9b\u202e\ufeff", "<U+009B><U+202E><U+FEFF>"),
        ("👨\u200d👩\u200d👧 می\u200cخواهم", "👨\u200d👩\u200d👧 می\u200cخواهم"),
    ],
)
def test_control_characters_of_a_row_do_not_act_on_the_terminal(text, shown):
    assert visible(text) == shown
