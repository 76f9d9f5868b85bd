"""A beginning that all rows share is read once: the same losses and answers, on whatever a model's family is."""

from types import SimpleNamespace

import pytest
import torch

from eyas.evaluation import answers
from eyas.evaluation.answers import losses_and_answers
from eyas.evaluation.losses import token_losses
from eyas.inference import shared_prefix
from eyas.inference.generate import generate
from eyas.inference.shared_prefix import read_beginning
from families import FAMILIES, VOCABULARY, make

ONCE = {
    "cohere",
    "gemma",
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
    """Five rows that begin with the same twelve tokens."""
    draw = torch.Generator().manual_seed(7)
    beginning = torch.randint(3, VOCABULARY, (12,), generator=draw).tolist()
    return [beginning + torch.randint(3, VOCABULARY, (n,), generator=draw).tolist() for n in (6, 3, 12, 9, 7)]


def encoded(learnt):
    found = []
    for row in rows():
        ids = torch.tensor([row])
        labels = ids.clone()
        labels[0, :-learnt] = -100
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_losses_and_answers_are_those_of_rows_that_read_all(family, monkeypatch):
    model = make(family, FAMILIES[family][2][0]).eval()
    model.generation_config.pad_token_id = 0

    def outcome():
        return (*(token_losses(model, encoded(learnt), 0) for learnt in (2, 14)), generate(model, TOKENIZER, rows(), 5))

    prompts = [row[:-2] for row in rows()]
    with monkeypatch.context() as patch:
        if family in ONCE:
            patch.setattr(answers, "generate", None)  # not needed
        together = losses_and_answers(model, TOKENIZER, encoded(2), prompts, 5)
    found, reads = outcome(), read_beginning(model, rows(), 30)[0]
    monkeypatch.setattr(shared_prefix, "FEWEST", 1000)
    plain = outcome()

    assert found[0] == pytest.approx(plain[0], rel=1e-5) and found[1] == pytest.approx(plain[1], rel=1e-5)
    assert found[2] == plain[2]
    assert [loss for loss, _ in together] == pytest.approx(plain[0], rel=1e-5)
    assert [answer for _, answer in together] == generate(model, TOKENIZER, prompts, 5)
    assert reads == (12 if family in ONCE else 0)


def test_a_prompt_that_its_row_does_not_begin_with_is_read_apart():
    model, asked = make("llama", "sdpa").eval(), [[9, *row[:-2]] for row in rows()]

    found = losses_and_answers(model, TOKENIZER, encoded(2), asked, 5)

    assert [answer for _, answer in found] == generate(model, TOKENIZER, asked, 5)


def test_a_beginning_is_what_all_rows_share_and_worth_its_own_pass():
    model, shared = make("llama", "sdpa").eval(), list(range(20))

    assert read_beginning(model, [[*shared, 1], [*shared, 2, 3]], 30)[0] == 20
    assert read_beginning(model, [shared, shared], 12)[0] == 12
    shared, cache = read_beginning(model, [[*shared[:9], 9], [*shared[:9], 8], [*shared[:9], 7]], 30)
    assert shared == cache.get_seq_length() == 9 and cache.layers[0].keys.shape[0] == 3
    assert read_beginning(model, [[1, 2, 3, 9], [1, 2, 3, 8]], 30) == (0, None)  # too few
    assert read_beginning(model, [list(range(20))], 30) == (0, None)  # one row
