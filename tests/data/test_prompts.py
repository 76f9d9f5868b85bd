"""Prompts of rows and of users."""

from transformers import AutoTokenizer

from eyas.data.prompts import as_chat, prompt_ids


def test_bare_prompt_is_a_user_turn_after_the_given_system_message(models):
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])

    chat = as_chat(tokenizer, "the hill", system="be brief")

    assert chat == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the hill"}]
    rendered = tokenizer.decode(prompt_ids(tokenizer, chat, {}))
    assert (
        rendered
        == "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nthe hill<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompt_is_unchanged_without_a_chat_template(models):
    assert as_chat(AutoTokenizer.from_pretrained(models["falcon7b"]), "the hill") == "the hill"
