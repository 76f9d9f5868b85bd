"""Answers do not depend on their batch, and say where they were cut."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eyas.inference.generate import generate


def test_answers_are_in_the_order_of_the_prompts_and_equal_those_of_each_prompt_alone(models):
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(models["smollm2"], dtype=torch.float32).eval()
    prompts = [list(range(3, 3 + n)) for n in (12, 4, 9, 30, 6)]

    together = generate(model, tokenizer, prompts, 8)

    assert together == [generate(model, tokenizer, [prompt], 8)[0] for prompt in prompts]
    assert len(set(together)) > 1


def test_an_answer_is_cut_unless_it_has_an_end_token(models):
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(models["smollm2"], dtype=torch.float32).eval()
    prompts = [[3, 4, 5, 6], [9, 8, 7]]
    written = [model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)[0, len(ids) :] for ids in prompts]
    model.generation_config.eos_token_id = end = int(written[0][0])
    assert end not in written[1]

    assert [answer.is_cut for answer in generate(model, tokenizer, prompts, 4)] == [False, True]
