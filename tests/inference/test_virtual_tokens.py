"""Losses and answers under a prompt-learning adapter equal those of each row alone, computed by hand."""

from types import SimpleNamespace

import peft
import pytest
import torch

from eyas.evaluation.answers import losses_and_answers
from eyas.inference.generate import generate
from families import VOCABULARY, make

VIRTUAL = 5
NEW = 6
END = 2


def up_to_the_end(rows, **_):
    """Return each row's ids as text, without the padding behind the end token."""
    texts = [" ".join(map(str, row.tolist())) + " " for row in rows]
    return [text.partition(f" {END} ")[0].strip() for text in texts]


TOKENIZER = SimpleNamespace(pad_token_id=0, eos_token_id=END, batch_decode=up_to_the_end)


@pytest.fixture(params=["llama", "gpt2", "opt", "gpt-neox", "qwen2"])
def model(request):
    torch.manual_seed(0)
    base = make(request.param)
    base.generation_config.pad_token_id = 0
    config = peft.PromptTuningConfig(num_virtual_tokens=VIRTUAL, task_type="CAUSAL_LM", prompt_tuning_init="RANDOM")
    return peft.get_peft_model(base, config).eval()


def prompts():
    """Return five prompts of three lengths, with the same first ten tokens."""
    draw = torch.Generator().manual_seed(7)
    prefix = torch.randint(3, VOCABULARY, (10,), generator=draw).tolist()
    return [prefix + torch.randint(3, VOCABULARY, (n,), generator=draw).tolist() for n in (6, 3, 11, 6, 3)]


def scores_after(model, ids):
    """Return the logits [length, vocabulary] of one row behind the virtual tokens."""
    base = model.get_base_model()
    row = base.get_input_embeddings()(torch.tensor([ids]))
    with torch.no_grad():
        scores = base(inputs_embeds=torch.cat([model.get_prompt(1), row], dim=1)).logits[0]
    return scores[VIRTUAL:]


def answer_by_hand(model, prompt):
    ids = list(prompt)
    for _ in range(NEW):
        ids.append(int(scores_after(model, ids)[-1].argmax()))
    return up_to_the_end([torch.tensor(ids[len(prompt) :])])[0]


def loss_by_hand(model, prompt):
    scores = scores_after(model, prompt)[-4:-1]  # the last three tokens are labeled
    return float(torch.nn.functional.cross_entropy(scores, torch.tensor(prompt[-3:])))


def encoded():
    rows = [torch.tensor([prompt]) for prompt in prompts()]
    labels = [row.clone().index_fill(1, torch.arange(row.shape[1] - 3), -100) for row in rows]
    return [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": label}
        for row, label in zip(rows, labels, strict=True)
    ]


def test_losses_and_answers_of_a_batch_are_those_of_each_row(model):
    results = losses_and_answers(model, TOKENIZER, encoded(), prompts(), NEW)

    assert [loss for loss, _ in results] == pytest.approx([loss_by_hand(model, row) for row in prompts()], rel=1e-5)
    assert [text for _, text in results] == [answer_by_hand(model, row) for row in prompts()]


def test_answers_without_the_adapter_are_the_bases(model):
    with model.disable_adapter():
        off = generate(model, TOKENIZER, prompts(), NEW)

    alone, on = (generate(each, TOKENIZER, prompts(), NEW) for each in (model.get_base_model(), model))
    assert off == alone != on
