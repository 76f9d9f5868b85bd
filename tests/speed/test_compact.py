"""Compact batches: the outputs and gradients of TRL's padded rows, on every family."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from eyas.model.probes.float32 import in_float32
from eyas.model.scores import scores_at
from eyas.speed.compact import attention, causal_lm, layout, lm_head
from eyas.speed.compact.causal_lm import compact
from eyas.speed.compact.probe import probe_compact
from families import FAMILIES, VOCABULARY, make

BY_ATTENTION = {
    "llama", "mistral", "mixtral", "qwen2", "qwen2 windowed", "qwen3", "gemma", "gemma3", "phi", "phi3", "gpt2", "opt",
    "gpt-neox", "starcoder2", "olmo2", "cohere", "granite moe",
}  # fmt: skip
BY_MASK = {"falcon 7b", "falcon 40b", "stablelm", "biogpt"}
NOT = {"falcon alibi", "bloom", "mpt", "mamba", "gpt-oss", "gemma2"}


PLAIN = ("log_probs", "entropy", "is_top1")
PER_TOKEN = (*PLAIN, "log_sum_sq_probs", "mean_logits", "label_mask")


def fused(family, outputs=PLAIN, **settings):
    model = make(family, FAMILIES[family][2][0])
    add_fused_lm_head(model, outputs=outputs, **settings)
    return model.eval()


def batch():
    """Return five rows: three with one prefix, two with another."""
    draw = torch.Generator().manual_seed(11)

    def tokens(count):
        return torch.randint(3, VOCABULARY, (count,), generator=draw)

    one, two = tokens(8), tokens(5)
    rows = [torch.cat([one, tokens(6)]), torch.cat([two, tokens(3)]), torch.cat([one, tokens(12)]),
            torch.cat([two, tokens(9)]), torch.cat([one, tokens(2)])]  # fmt: skip
    ids, mask = torch.zeros(2, 5, 22, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
        supervised = 2 if index != 1 else len(row)  # one row has labels from its first token on
        labels[index, len(row) - supervised : len(row)] = row[-supervised:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss_and_gradients(model, given):
    model.zero_grad()
    outputs = model(**given, fused_lm_head=True)
    loss = -outputs.log_probs.sum()
    loss.backward()
    gradients = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    return float(loss.detach()), gradients, outputs


def assert_same_outputs(ours, trls, per_token=PLAIN):
    """Compare every field with TRL's own, in TRL's shape [rows, length - 1]."""
    assert ours.keys() == trls.keys() and {*per_token, "label_mask", "loss"} <= {*ours.keys()}
    assert torch.allclose(ours.loss, trls.loss, rtol=1e-5)
    for name in set(PER_TOKEN) & {*ours.keys()}:
        one, other = getattr(ours, name), getattr(trls, name)
        assert one.shape == other.shape == (5, 21) and one.dtype == other.dtype
        if other.dtype == torch.bool:
            assert torch.equal(one, other)
        else:
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["shared", "not shared"])
@pytest.mark.parametrize("family", sorted(BY_ATTENTION | BY_MASK))
def test_loss_gradients_and_outputs_equal_those_of_padded_rows(family, share):
    model = fused(family)
    result = probe_compact(model, share)
    loss, gradients, plain = loss_and_gradients(model, batch())

    compact(model, result.mode, share)
    found, its_gradients, outputs = loss_and_gradients(model, batch())

    assert result.mode == ("attention" if family in BY_ATTENTION else "mask")
    assert found == pytest.approx(loss, rel=1e-5)
    assert float(torch.nn.functional.cosine_similarity(gradients, its_gradients, dim=0)) > 0.999999
    assert_same_outputs(outputs, plain)
    for name in ("entropy", "is_top1", "label_mask"):
        sums = [float(getattr(each, name).detach().float().sum()) for each in (outputs, plain)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-5)


@pytest.mark.parametrize("family", sorted(BY_ATTENTION | BY_MASK))
def test_frozen_head_returns_the_outputs_of_trls_head(family, monkeypatch):
    monkeypatch.setattr(
        lm_head, "LOGITS_AT_ONCE", 3 * VOCABULARY
    )  # three positions at once, so that there are several parts
    model = fused(family)
    for parameter in model.get_output_embeddings().parameters():
        parameter.requires_grad_(False)
    loss, gradients, plain = loss_and_gradients(model, batch())
    token_log_probs, calls = causal_lm.token_log_probs, []
    compact(model, probe_compact(model, True).mode, True)
    monkeypatch.setattr(causal_lm, "token_log_probs", lambda *given: calls.append(given) or token_log_probs(*given))

    found, its_gradients, outputs = loss_and_gradients(model, batch())

    assert len(calls) == 1 and lm_head.frozen_head(model) is not None
    assert found == pytest.approx(loss, rel=1e-5) and torch.allclose(outputs.loss, plain.loss)
    assert torch.allclose(its_gradients, gradients, atol=1e-5 * float(gradients.abs().max()))
    assert_same_outputs(outputs, plain)
    for name in ("entropy", "is_top1", "label_mask"):
        sums = [float(getattr(each, name).detach().float().sum()) for each in (outputs, plain)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-5)


@pytest.mark.parametrize("settings", [{"outputs": PER_TOKEN[:-1], "temperature": 0.7}, {"temperature": 1.3},
                                      {"cast_lm_head_to_fp32": True}], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", ["attention", "scores"])
def test_other_settings_of_trls_head_are_kept(mode, settings):
    """GRPO has a temperature, DPO has more outputs; a head of ours would ignore both."""
    model = fused("llama", **settings)
    model.get_output_embeddings().requires_grad_(False)
    loss, gradients, plain = loss_and_gradients(model, batch())

    compact(model, mode, mode == "attention")
    found, its_gradients, outputs = loss_and_gradients(model, batch())

    assert_same_outputs(outputs, plain, settings.get("outputs", PLAIN))
    assert found == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(its_gradients, gradients, atol=1e-5 * float(gradients.abs().max()))


def test_weighted_rows_keep_their_own_log_probabilities():
    """DPO sums each row, and weighs chosen and rejected rows differently."""
    model, gradients = fused("llama"), []
    weights = torch.tensor([1.0, -0.5, 2.0, 0.3, -1.0])
    for compacted in (False, True):
        if compacted:
            compact(model, "attention", True)
        model.zero_grad()
        (model(**batch(), fused_lm_head=True).log_probs.sum(dim=1) * weights).sum().backward()
        gradients.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))

    assert torch.allclose(gradients[1], gradients[0], atol=1e-5 * float(gradients[0].abs().max()))


@pytest.mark.parametrize(
    ("name", "value"), [*((name, 0.5) for name in lm_head.LOGITS_ARE_CHANGED_BY), ("output_router_logits", True)]
)
def test_head_whose_logits_are_changed_afterwards_is_left_to_trl(name, value):
    model = make("llama", "sdpa").requires_grad_(False)
    assert lm_head.frozen_head(model) is not None

    setattr(model.config, name, value)

    assert lm_head.frozen_head(model) is None


@pytest.mark.parametrize("bias", [True, False])
def test_frozen_head_follows_the_definitions(bias):
    torch.manual_seed(0)
    layer, hidden = torch.nn.Linear(16, 50, bias=bias).double(), torch.randn(7, 16).double().requires_grad_()
    targets = torch.randint(50, (7,))
    targets[2] = (layer(hidden)[2]).argmax()
    weights = torch.rand(7)
    logs = layer(hidden).log_softmax(dim=1)
    expected = logs.gather(1, targets[:, None])[:, 0]
    (of_hidden,) = torch.autograd.grad((weights * expected).sum(), hidden)

    log_probs, entropy, is_top1 = lm_head.token_log_probs(layer, hidden, targets)
    (found,) = torch.autograd.grad((weights * log_probs).sum(), hidden)

    assert torch.allclose(log_probs.double(), expected, atol=1e-5) and torch.allclose(found, of_hidden, atol=1e-5)
    assert torch.allclose(entropy.double(), -(logs.exp() * logs).sum(dim=1), atol=1e-5)
    assert is_top1.tolist() == (logs.argmax(dim=1) == targets).tolist() and is_top1[2]


def test_rows_padded_on_the_left_have_the_same_loss():
    model, right = fused("llama"), batch()
    loss, _, _ = loss_and_gradients(model, right)
    length = right["attention_mask"].sum(dim=1)
    moved = (torch.arange(22) - (22 - length[:, None])) % 22  # each row rotated until it ends with the batch
    left = {name: value.gather(1, moved) for name, value in right.items()}
    compact(model, "attention", True)

    assert left["attention_mask"][:, -1].all()
    assert loss_and_gradients(model, left)[0] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "falcon alibi", "bloom", "mpt"])
def test_padded_batches_are_scored_only_where_there_is_a_label(family, monkeypatch):
    model, given, seen = fused(family), batch(), []
    given["labels"][3] = -100  # a row without any label
    loss, gradients, plain = loss_and_gradients(model, given)

    compact(model, "scores", False)
    monkeypatch.setattr(causal_lm, "scores_at", lambda model, at: seen.append(int(at.sum())) or scores_at(model, at))
    found, its_gradients, outputs = loss_and_gradients(model, given)

    assert seen == [int((given["labels"][:, 1:] != -100).sum())]
    assert_same_outputs(outputs, plain)
    assert found == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(its_gradients, gradients, atol=1e-6 * float(gradients.abs().max()))


@pytest.mark.parametrize("mode", ["attention", "scores"])
def test_batch_without_any_label_has_a_differentiable_zero(mode):
    model, given = fused("llama"), batch()
    given["labels"] = torch.full_like(given["labels"], -100)
    compact(model, mode, mode == "attention")

    loss, gradients, _ = loss_and_gradients(model, given)

    assert loss == 0 and not gradients.any()


@pytest.mark.parametrize("family", sorted(NOT))
def test_family_that_computes_differently_is_restored(family):
    model = fused(family)
    before = model(**batch(), fused_lm_head=True).log_probs

    assert probe_compact(model, True).mode is None

    assert torch.equal(model(**batch(), fused_lm_head=True).log_probs, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probe_detects_a_leak(monkeypatch, dtype):
    """Planted fault: a document reads the own tokens of the previous one, too."""
    model = fused("llama").to(dtype)
    real = attention._attend

    def leaking(q, k, v, group, *more):
        return real(q, k, v, type(group)(0, (group.tokens,)), *more)

    monkeypatch.setattr(attention, "_attend", leaking)

    with in_float32(model):
        result = probe_compact(model, True)

    assert result.mode == "mask" and result.difference < result.tolerance < result.reaction


@pytest.mark.parametrize(("family", "mode"), [("llama", "attention"), ("gpt2", "attention"), ("falcon 7b", "mask")])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "not shared"])
def test_filler_tokens_change_nothing(family, mode, share, monkeypatch):
    """bfloat16 batches have filler tokens; only float32 can show that they change nothing."""
    model = fused(family)
    loss, gradients, _ = loss_and_gradients(model, batch())
    sizes = []

    def next_hundred(tokens, *_):
        sizes.append(tokens)
        return tokens + 100

    monkeypatch.setattr(layout, "recurring", next_hundred)
    compact(model, mode, share)
    found, its_gradients, _ = loss_and_gradients(model, batch())

    assert sizes and found == pytest.approx(loss, rel=1e-5)
    assert torch.nn.functional.cosine_similarity(gradients, its_gradients, dim=0) > 1 - 1e-6


def test_flat_rows_share_prefixes_too():
    """TRL packs documents end to end, with positions that restart."""
    model = fused("llama")
    given = batch()
    loss, gradients, _ = loss_and_gradients(model, given)
    kept = given["attention_mask"].bool()
    flat = {name: given[name][kept][None] for name in ("input_ids", "labels")}
    starts = kept.sum(dim=1).tolist()
    flat["position_ids"] = torch.cat([torch.arange(length) for length in starts])[None]
    flat["labels"][flat["position_ids"] == 0] = -100

    compact(model, "attention", True)
    found, its_gradients, _ = loss_and_gradients(model, flat)

    assert found == pytest.approx(loss, rel=1e-5)
    assert float(torch.nn.functional.cosine_similarity(gradients, its_gradients, dim=0)) > 0.999999


def test_checkpointed_layers_read_the_same_layout():
    model = fused("llama").train()
    plain = copy.deepcopy(model)
    model.activation_checkpointing_enable()
    compact(model, "attention", True)
    loss, gradients, _ = loss_and_gradients(plain, batch())

    found, its_gradients, _ = loss_and_gradients(model, batch())

    assert found == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(its_gradients, gradients, atol=1e-5 * float(gradients.abs().max()))


def test_generation_and_plain_calls_pass_unchanged():
    model = fused("llama")
    ids = batch()["input_ids"][:1, :8]
    logits, answer = model(ids).logits, model.generate(ids, max_new_tokens=4, do_sample=False)

    compact(model, "attention", True)
    loss_and_gradients(model, batch())

    assert torch.allclose(model(ids).logits, logits, atol=1e-6)
    assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False), answer)


def test_mask_that_would_be_too_large_leaves_the_batch_padded(monkeypatch):
    model, seen = fused("falcon 7b"), []
    before, _, _ = loss_and_gradients(model, batch())
    compact(model, "mask", True)
    monkeypatch.setattr("eyas.speed.compact.mask.LARGEST", 100)
    model.base_model.register_forward_pre_hook(lambda *call: seen.append(call[2]["input_ids"].shape), with_kwargs=True)

    found, _, _ = loss_and_gradients(model, batch())

    assert found == pytest.approx(before, rel=1e-6) and seen == [batch()["input_ids"].shape]


def test_tokens_of_another_batch_are_refused():
    """A direct call of the decoder would read another batch's layout."""
    model = fused("llama")
    compact(model, "attention", True)
    loss_and_gradients(model, batch())

    with pytest.raises(RuntimeError, match="5 tokens reached the attention of a batch of"):
        model.model(batch()["input_ids"][:1, :5])


def test_dpo_has_the_same_loss_gradients_and_metrics_with_compact_batches(models, tmp_path):
    """Chosen and rejected answers share their prompt, which is computed once."""
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
    rows = [{"prompt": "we saw the falcon" * n, "chosen": " over a green hill", "rejected": " it flew" * (4 - n)}
            for n in (1, 2, 3)]  # fmt: skip
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=3, report_to="none", use_cpu=True, disable_tqdm=True,
        activation_checkpointing=False, bf16=False,
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(models["smollm2"], dtype=torch.float32, attn_implementation="sdpa")
    adapter = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer = DPOTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        peft_config=adapter,
    )  # fmt: skip
    given, outcomes, tokens = next(iter(trainer.get_train_dataloader())), [], []
    inner = trainer.model.get_base_model()
    inner.base_model.register_forward_pre_hook(
        lambda *call: tokens.append(call[2]["input_ids"].numel()), with_kwargs=True
    )
    for compacted in (False, True):
        if compacted:
            compact(inner, "attention", True)
        trainer.model.zero_grad()
        trainer._metrics["train"].clear()
        loss = trainer.compute_loss(trainer.model, given)
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        outcomes.append(
            (loss.detach(), gradients, {name: values[0] for name, values in trainer._metrics["train"].items()})
        )
    (loss, gradients, metrics), (its_loss, its_gradients, its_metrics) = outcomes

    assert max(tokens[len(tokens) // 2 :]) < 0.8 * min(tokens[: len(tokens) // 2])
    assert torch.allclose(its_loss, loss, rtol=1e-5) and metrics.keys() == its_metrics.keys()
    assert torch.allclose(its_gradients, gradients, atol=1e-5 * float(gradients.abs().max()))
    assert {"rewards/margins", "logps/chosen", "entropy"} <= metrics.keys()
    del metrics["num_tokens"], its_metrics["num_tokens"]  # a sum over all steps
    assert its_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)
