"""Losses and answers are the same with a shared prefix that is computed once, for every model family."""

from types import SimpleNamespace

import pytest
import torch

from eyas.evaluation import answers
from eyas.evaluation.answers import losses_and_answers
from eyas.evaluation.losses import token_losses
from eyas.inference import shared_prefix
from eyas.inference.generate import generate
from eyas.inference.shared_prefix import read_prefix
from families import FAMILIES, VOCABULARY, make

ONCE = {
    "cohere",
    "gemma",
    "gpt-j",
    "gpt-neox",
    "gpt2",
    "granite moe",
    "llama",
    "mixtral",
    "olmo2",
    "opt",
    "phi",
    "qwen2",
    "qwen3",
}
TOKENIZER = SimpleNamespace(
    pad_token_id=0, eos_token_id=2, batch_decode=lambda rows, **_: [" ".join(map(str, row.tolist())) for row in rows]
)


def rows():
    """Return five rows with the same first twelve tokens."""
    draw = torch.Generator().manual_seed(7)
    prefix = torch.randint(3, VOCABULARY, (12,), generator=draw).tolist()
    return [prefix + torch.randint(3, VOCABULARY, (n,), generator=draw).tolist() for n in (6, 3, 12, 9, 7)]


def encoded(trained):
    examples = []
    for row in rows():
        ids = torch.tensor([row])
        labels = ids.clone()
        labels[0, :-trained] = -100
        examples.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return examples


def texts_of(answers):
    return [answer.text for answer in answers]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_losses_and_answers_equal_those_without_a_shared_prefix(family, monkeypatch):
    model = make(family, FAMILIES[family][2][0]).eval()
    model.generation_config.pad_token_id = 0

    def losses_and_text():
        return (
            *(token_losses(model, encoded(trained), 0) for trained in (2, 14)),
            generate(model, TOKENIZER, rows(), 5),
        )

    prompts = [row[:-2] for row in rows()]
    with monkeypatch.context() as patch:
        if family in ONCE:
            patch.setattr(answers, "generate", None)  # not needed
        together = losses_and_answers(model, TOKENIZER, encoded(2), prompts, 5)
    shared, length = losses_and_text(), read_prefix(model, rows(), 30)[0]
    monkeypatch.setattr(shared_prefix, "FEWEST_TOKENS", 1000)
    plain = losses_and_text()

    assert shared[0] == pytest.approx(plain[0], rel=1e-5) and shared[1] == pytest.approx(plain[1], rel=1e-5)
    assert shared[2] == plain[2]
    assert [loss for loss, _ in together] == pytest.approx(plain[0], rel=1e-5)
    assert [answer for _, answer in together] == texts_of(generate(model, TOKENIZER, prompts, 5))
    assert length == (12 if family in ONCE else 0)


def test_prompt_that_is_not_the_start_of_its_row_is_read_separately():
    model, prompts = make("llama", "sdpa").eval(), [[9, *row[:-2]] for row in rows()]

    results = losses_and_answers(model, TOKENIZER, encoded(2), prompts, 5)

    assert [answer for _, answer in results] == texts_of(generate(model, TOKENIZER, prompts, 5))


def test_prefix_is_shared_by_all_rows_and_long_enough():
    model, shared = make("llama", "sdpa").eval(), list(range(20))

    assert read_prefix(model, [[*shared, 1], [*shared, 2, 3]], 30)[0] == 20
    assert read_prefix(model, [shared, shared], 12)[0] == 12
    shared, cache = read_prefix(model, [[*shared[:9], 9], [*shared[:9], 8], [*shared[:9], 7]], 30)
    assert shared == cache.get_seq_length() == 9 and cache.layers[0].keys.shape[0] == 3
    assert read_prefix(model, [[1, 2, 3, 9], [1, 2, 3, 8]], 30) == (0, None)  # too short
    assert read_prefix(model, [list(range(20))], 30) == (0, None)  # one row
