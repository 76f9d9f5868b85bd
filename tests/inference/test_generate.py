"""Answers do not depend on their batch."""

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
