"""Encoders without padding compute what padded rows compute."""

import pytest
import torch
import transformers

from eyas.model.probes.difference import within
from eyas.speed.compact import attention, encoder
from eyas.speed.compact.encoder import compact_encoder, probe_encoder

TINY = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "initializer_range": 0.2, "num_labels": 3, "max_position_embeddings": 64}  # fmt: skip
DISTIL = {"vocab_size": 97, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.2,
          "num_labels": 3}  # fmt: skip
COMPACT = {
    "Bert": TINY, "Roberta": TINY | {"pad_token_id": 1}, "Electra": TINY, "DistilBert": DISTIL,
    "Camembert": TINY | {"pad_token_id": 1},
}  # fmt: skip
NOT = {"DebertaV2": TINY, "ModernBert": TINY | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
       "Llama": TINY | {"pad_token_id": 0}, "Albert": TINY, "MPNet": TINY}  # fmt: skip


def make(family):
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**(COMPACT | NOT)[family])
    return getattr(transformers, f"{family}ForSequenceClassification")(config).eval()


def batch():
    draw = torch.Generator().manual_seed(5)
    lengths = torch.tensor([7, 12, 3, 9])
    ids = torch.randint(3, 97, (4, 12), generator=draw)
    mask = (torch.arange(12) < lengths[:, None]).long()
    return {"input_ids": ids.where(mask.bool(), 0), "attention_mask": mask, "labels": torch.tensor([0, 2, 1, 1])}


def loss_and_gradients(model):
    model.zero_grad()
    outputs = model(**batch())
    outputs.loss.backward()
    return outputs, torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", COMPACT)
def test_scores_loss_and_gradients_equal_those_of_padded_rows(family, checkpointing):
    model = make(family)
    plain, its_gradients = loss_and_gradients(model)
    seen = []

    difference, tolerance = probe_encoder(model)
    restore = compact_encoder(model)
    if checkpointing:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if "dropout_prob" in vars(module):
                module.dropout_prob = 0.0
        model.activation_checkpointing_enable()
    model.base_model.register_forward_hook(lambda *_: seen.append(attention.Current.layout))
    outputs, gradients = loss_and_gradients(model)

    assert difference <= tolerance
    assert len(seen[0].kept) == 31
    assert float(outputs.loss.detach()) == pytest.approx(float(plain.loss.detach()), rel=1e-5)
    assert torch.allclose(outputs.logits, plain.logits, atol=1e-5)
    assert float(torch.nn.functional.cosine_similarity(gradients, its_gradients, dim=0)) > 0.999999
    restore()
    assert torch.equal(model.eval()(**batch()).logits, plain.logits)


@pytest.mark.parametrize("more", [1, 6, 40])
def test_filler_tokens_change_nothing(more, monkeypatch):
    """bfloat16 batches have filler tokens; only float32 can show that they change nothing."""
    model = make("Bert")
    plain, its_gradients = loss_and_gradients(model)
    monkeypatch.setattr(encoder, "recurring", lambda tokens, *_: tokens + more)
    seen = []

    compact_encoder(model)
    model.base_model.register_forward_hook(lambda *_: seen.append(attention.Current.layout))
    outputs, gradients = loss_and_gradients(model)

    assert len(seen[0].kept) == 31 + more
    assert torch.allclose(outputs.logits, plain.logits, atol=1e-5)
    assert float(torch.nn.functional.cosine_similarity(gradients, its_gradients, dim=0)) > 0.999999


@pytest.mark.parametrize("family", NOT)
def test_encoder_that_computes_differently_is_restored(family):
    model = make(family)
    before = model(**batch()).logits

    difference, tolerance = probe_encoder(model)

    assert difference > tolerance
    assert torch.equal(model(**batch()).logits, before)


def test_probe_detects_a_text_that_reads_its_padding(monkeypatch):
    """Planted fault: no mask in the attention."""
    model, right = make("Bert"), attention._reading
    monkeypatch.setattr(
        attention, "_reading", lambda q, k, v, readable, *more: right(q, k, v, torch.ones_like(readable), *more)
    )

    difference, tolerance = probe_encoder(model)

    assert tolerance < difference < 100


def test_encoder_with_zero_attention_cannot_show_a_leak_and_is_refused():
    model = make("Bert")
    for layer in model.bert.encoder.layer:
        torch.nn.init.zeros_(layer.attention.output.dense.weight)

    difference, tolerance = probe_encoder(model)

    assert difference == float("inf") and tolerance < 1e-3


def test_new_head_with_scores_near_zero_hides_no_leak(monkeypatch):
    """Scores of 1e-6 move by less than 1e-5 whatever the model reads."""
    model, right = make("Bert"), attention._reading
    model.classifier.weight.data.mul_(1e-6)
    model.classifier.bias.data.zero_()
    assert probe_encoder(model)[0] <= probe_encoder(model)[1]
    monkeypatch.setattr(
        attention, "_reading", lambda q, k, v, readable, *more: right(q, k, v, torch.ones_like(readable), *more)
    )

    difference, tolerance = probe_encoder(model)

    assert difference > 100 * tolerance


def test_encoder_with_nan_is_refused():
    model = make("Bert")
    torch.nn.init.constant_(model.classifier.weight, float("nan"))

    assert not within(*probe_encoder(model))
