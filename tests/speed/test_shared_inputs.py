"""LoRA layers that share an input are batched without a change of outputs."""

import peft
import pytest
import torch

from eyas.speed.fused_lora.linear import SharedInput, fuse_lora, fused_layers
from eyas.speed.fused_lora.shared_inputs import share_inputs
from families import make

SEES = {"input_ids": torch.arange(3, 15)[None]}


def adapted(family, **adapter):
    torch.manual_seed(0)
    config = peft.LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False, **adapter)
    wrapped = peft.get_peft_model(make(family, "sdpa"), config)
    fuse_lora(wrapped)
    return wrapped


def gradients(model):
    model.zero_grad()
    torch.manual_seed(1)  # for dropout
    scores = model(**SEES).logits
    scores.square().sum().backward()
    return [scores.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)]


def together(model):
    """Return the names of the layers of each batch, without repetition."""
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    batches = []
    for layer in fused_layers(model):
        row = [names[each] for each in layer.shared_input.layers]
        if row not in batches:
            batches.append(row)
    return batches


@pytest.mark.parametrize(
    ("family", "joined"),
    [
        ("llama", [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]),
        ("phi", [["q_proj", "k_proj", "v_proj", "fc1"], ["dense"], ["fc2"]]),
        ("gemma", [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]),
        ("falcon 7b", [["query_key_value", "dense_h_to_4h"], ["dense"], ["dense_4h_to_h"]]),
    ],
)
def test_layers_with_the_same_input_are_batched_and_return_the_same(family, joined):
    model = adapted(family)
    before = gradients(model)

    share_inputs(model)

    assert together(model) == joined
    for one, other in zip(gradients(model), before, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_checkpointed_layers_compute_their_batch_again():
    model = adapted("llama")
    before = gradients(model)
    share_inputs(model)
    model.train()
    model.enable_input_require_grads()
    model.get_base_model().activation_checkpointing_enable()

    for one, other in zip(gradients(model), before, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
    assert all(layer.shared_input._given is None for layer in fused_layers(model))


def test_each_batch_is_computed_once(monkeypatch):
    model, made = adapted("llama"), []
    share_inputs(model)
    output = SharedInput.output
    monkeypatch.setattr(
        SharedInput, "output", lambda self, *given: made.append(not self._ready) or output(self, *given)
    )

    gradients(model)

    assert len(made) == 14 and sum(made) == 8  # q, k, v, o, gate, up, down of two blocks; four products each
    assert all(layer.shared_input._given is None and not layer.shared_input._ready for layer in fused_layers(model))


def test_each_layer_draws_its_own_dropout():
    model = adapted("llama", lora_dropout=0.5)
    before = gradients(model)

    share_inputs(model)

    for one, other in zip(gradients(model), before, strict=True):
        assert torch.equal(one, other)


def test_layer_with_a_detached_output_has_no_gradient_and_the_others_have_theirs():
    model = adapted("llama")
    q, k, v = fused_layers(model)[:3]
    share_inputs(model)
    x = torch.randn(3, 32, requires_grad=True)

    (q(x).square().sum() + 0 * k(x).detach().sum() + v(x).square().sum()).backward()
    joined = [x.grad.clone(), *(layer.lora_A["default"].weight.grad for layer in (q, k, v))]
    x.grad, q.lora_A["default"].weight.grad, v.lora_A["default"].weight.grad = None, None, None
    (q(x.clone()).square().sum() + v(x.clone()).square().sum()).backward()

    assert joined[2] is None and k.lora_B["default"].weight.grad is None
    assert torch.allclose(joined[0], x.grad, atol=1e-4)
    assert torch.allclose(joined[1], q.lora_A["default"].weight.grad, atol=1e-4)


def test_changed_input_is_computed_again():
    model = adapted("llama")
    share_inputs(model)
    q, k, v = fused_layers(model)[0].shared_input.layers
    x = torch.randn(3, 32)
    with torch.no_grad():
        alone = [layer(x.clone()) for layer in (q, k)]
        assert torch.equal(q(x), alone[0])
        x.mul_(2)
        twice = k(x)

    assert not torch.allclose(twice, alone[1]) and torch.allclose(twice, 2 * alone[1], atol=1e-5)
    assert v in q.shared_input._ready


def test_disabled_adapter_in_one_layer_leaves_the_others_right():
    model = adapted("llama")
    q, k, _ = fused_layers(model)[:3]
    x = torch.randn(3, 32)
    with torch.no_grad():
        expected = k(x)
        share_inputs(model)
        q.enable_adapters(False)

        assert torch.equal(q(x), q.base_layer(x)) and torch.allclose(k(x), expected, atol=1e-6)
