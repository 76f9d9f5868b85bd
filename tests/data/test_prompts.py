"""Prompts of users."""

import pytest
from transformers import AutoTokenizer

from eyas.data.prompts import user_prompt
from eyas.errors import DataError


def test_prompt_is_a_user_turn_after_the_given_system_message(models):
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])

    rendered = tokenizer.decode(user_prompt(tokenizer, "the hill", {}, system="be brief"))

    assert (
        rendered
        == "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nthe hill<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompt_is_the_text_itself_without_a_chat_template_and_where_plain_prompts_were_trained(models):
    falcon, chat = (AutoTokenizer.from_pretrained(models[name]) for name in ("falcon7b", "smollm2"))

    assert falcon.decode(user_prompt(falcon, "the hill", {})) == "the hill"
    assert chat.decode(user_prompt(chat, "the hill", {}, form="text")) == "the hill"


NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}SYSTEM{% else %}{{ m.content }}{% endif %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        (NO_SYSTEM.replace("SYSTEM", "{{ raise_exception('no such role') }}"), "no such role"),
        (NO_SYSTEM.replace("SYSTEM", ""), "leaves system messages out"),
    ],
    ids=["no template", "a template that refuses the role", "a template that drops it"],
)
def test_system_message_that_the_model_would_not_read_is_refused(models, template, message):
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])
    tokenizer.chat_template = template

    with pytest.raises(DataError, match=f"--system: .*{message}"):
        user_prompt(tokenizer, "the hill", {}, system="be brief")


def test_prompt_without_a_token_is_refused(models):
    with pytest.raises(DataError, match="--prompt '': has no token"):
        user_prompt(AutoTokenizer.from_pretrained(models["falcon7b"]), "", {})
