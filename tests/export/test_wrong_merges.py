"""A wrong merge is refused by the name of the tensor, however small the error."""

import json
import re

import pytest
import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from safetensors.torch import load_file, save_file

import merges
from eyas.export.refusals import ArtifactRefused

pytestmark = pytest.mark.slow

Q, K, GATE, UP = (
    f"model.layers.1.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj", "mlp.up_proj")
)
FLOAT32 = {"dtype": "float32"}


@pytest.fixture
def run_of(tmp_path):
    return lambda **settings: merges.finished_run(tmp_path, **{"export": FLOAT32, **settings})


def refusal(run, recipe, **options):
    with pytest.raises(ArtifactRefused) as caught:
        merges.merged(run, recipe, **options)
    assert not run.merged.exists() and not run.parity.exists() and not run.merging.exists()
    return str(caught.value)


@pytest.fixture
def merging(monkeypatch):
    """Return a function that changes the model just before it is merged; the reference is correct."""

    def plant(change):
        from eyas.export import merge

        right = merge.merge_and_check
        monkeypatch.setattr(merge, "merge_and_check", lambda tuned, *others: right(change(tuned) or tuned, *others))

    return plant


@pytest.fixture
def wrong_update(merging):
    """Return a function that makes peft add a wrong update, to one layer or to all."""

    def plant(change, only=None):
        def on(tuned):
            for name, layer in tuned.base_model.model.named_modules():
                if isinstance(layer, Linear) and only in (None, name):
                    wrong = change(layer, layer.get_delta_weight("default").detach())
                    layer.get_delta_weight = lambda _adapter, wrong=wrong: wrong

        merging(on)

    return plant


def test_the_same_merge_without_an_error_is_released(run_of):
    proof = merges.merged(*run_of())

    assert proof.weights.faults == () and len(proof.weights.updates) == 14 and proof.weights.untouched == 7
    assert max(update.error for update in proof.weights.updates) < 1e-6


@pytest.mark.parametrize("error", [1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1])
def test_a_small_error_in_the_update_of_one_layer_is_refused(error, run_of, wrong_update):
    wrong_update(lambda _layer, update: update * (1 + error), UP)

    message = refusal(*run_of())

    assert float(re.search(rf"{UP}.weight: the merged update is off by ([\d.e-]+) of", message)[1]) == pytest.approx(
        error, rel=0.1
    )
    assert message.count("the merged update is off") == 1


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        (lambda _layer, update: 0 * update, Q),
        (lambda _layer, update: 2 * update, None),
        (lambda _layer, update: update / 2, None),
        (lambda layer, update: update / layer.r["default"] ** 0.5, None),
        (lambda layer, update: update / layer.scaling["default"], None),
        (lambda _layer, update: update.T, Q),
        (lambda _layer, update: -update, K),
        (lambda _layer, update: update.roll(1, 0), GATE),
        (lambda _layer, update: update.bfloat16().float(), None),
        (lambda _layer, update: update.half().float(), None),
        (lambda _layer, update: update.index_fill(0, torch.tensor([5]), 0.0), GATE),
    ],
    ids=[
        "one layer is left out", "lora_alpha is doubled", "lora_alpha is halved", "rsLoRA is ignored",
        "lora_alpha is ignored", "fan_in_fan_out is wrong", "one sign is wrong", "rows are shifted",
        "updates are rounded to bfloat16", "updates are rounded to float16", "one row is left out",
    ],
)  # fmt: skip
def test_a_wrong_update_is_refused_by_name(change, layer, run_of, wrong_update):
    wrong_update(change, layer)

    message = refusal(*run_of(adapter={"r": 4, "lora_alpha": 12}))

    assert "in float32, the merged model is not what was trained" in message
    assert f"{layer or 'model.layers.0.self_attn.q_proj'}.weight: the merged update is off by" in message


def test_swapped_updates_of_two_layers_are_refused(run_of, merging):
    def swap(tuned):
        gate, up = (tuned.get_submodule(f"base_model.model.{path}") for path in (GATE, UP))
        updates = gate.get_delta_weight("default").detach(), up.get_delta_weight("default").detach()
        gate.get_delta_weight, up.get_delta_weight = (lambda _: updates[1]), (lambda _: updates[0])

    merging(swap)

    message = refusal(*run_of())

    assert f"{GATE}.weight: the merged update is off" in message and f"{UP}.weight: the merged update is off" in message


def change_weight(path, change):
    def on(tuned):
        weight = tuned.get_submodule(path).weight
        weight.data = change(weight.data)

    return on


def one_last_place(tensor):
    changed = tensor.clone()
    changed.view(-1)[7] = torch.nextafter(changed.view(-1)[7], torch.tensor(torch.inf))
    return changed


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            "model.norm",
            one_last_place,
            "model.norm.weight: differs from the base's, although the adapter does not change it",
        ),
        (
            "model.embed_tokens",
            lambda t: t.index_fill(0, torch.tensor([96]), 0.0),
            "model.embed_tokens.weight: differs from",
        ),
        (f"{Q}.base_layer", one_last_place, f"{Q}.weight: is not the base that was trained on"),
        (f"{Q}.base_layer", lambda t: t.half().float() * 1.0001, f"{Q}.weight: is not the base that was trained on"),
        ("lm_head", lambda t: t.roll(1, 0), "lm_head.weight: differs from the base's"),
    ],
    ids=["a norm", "a row of the embeddings that no probe reads", "an adapted weight", "its scale", "the head"],
)
def test_a_changed_base_is_refused_by_the_name_of_the_tensor(path, change, message, run_of, merging):
    merging(change_weight(f"base_model.model.{path}", change))

    assert message in refusal(*run_of())


def test_a_merge_in_bfloat16_is_refused(run_of, monkeypatch):
    from eyas.export import merge

    right = merge.merge_and_check

    def in_bfloat16(tuned, *others):
        merged, weights = right(tuned.bfloat16(), *others)
        return merged.float(), weights

    monkeypatch.setattr(merge, "merge_and_check", in_bfloat16)

    assert ".weight: the merged update is off by" in refusal(*run_of())


def four_bit(weight):
    """Return a weight in sixteen steps for each row, as after a merge into a quantized layer."""
    step = weight.abs().amax(1, keepdim=True) / 7
    return (weight / step).round().clamp(-8, 7) * step


def test_a_merge_into_requantized_weights_is_refused(run_of, merging):
    def on(tuned):
        for layer in (module for module in tuned.modules() if isinstance(module, Linear)):
            base, update = layer.base_layer.weight.detach(), layer.get_delta_weight("default").detach()
            wrong = four_bit(base + update) - base
            layer.get_delta_weight = lambda _adapter, wrong=wrong: wrong

    merging(on)

    assert ".weight: the merged update is off by" in refusal(*run_of(size=0.1))


@pytest.mark.parametrize(
    "settings",
    [{"lora_alpha": 16}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 16}}],
    ids=lambda settings: next(iter(settings)),
)
def test_an_adapter_with_another_scale_than_the_recipe_is_refused(settings, run_of):
    run, recipe = run_of()
    merges.change_json(run.adapter / "adapter_config.json", **settings)
    merges.seal_again(run.adapter)

    assert "the merged update is off by" in refusal(run, recipe)


def test_a_merge_without_the_magnitudes_of_dora_is_refused(run_of, monkeypatch):
    plain = lambda module, adapter, weight: weight + module.get_delta_weight(adapter)  # noqa: E731
    monkeypatch.setattr(DoraLinearVariant, "merge_safe", staticmethod(plain))

    assert "the merged update is off by" in refusal(*run_of(adapter={"use_dora": True}))


def test_a_layer_that_was_trained_in_full_and_then_lost_is_refused(run_of, merging):
    def untrained(tuned):
        head = tuned.get_submodule("base_model.model.lm_head")
        head.modules_to_save["default"].weight.data = head.original_module.weight.data.clone()

    merging(untrained)

    message = refusal(*run_of(adapter={"modules_to_save": ["lm_head"]}))

    assert "lm_head.weight: was trained in full and differs from the adapter's file" in message


def rewrite(change):
    def on(folder):
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})

    return on


def with_tensor(name, change):
    return rewrite(lambda tensors: tensors | {name: change(tensors)})


def toward_zero(tensors):
    weight = tensors[f"{Q}.weight"].clone()
    weight.view(torch.int16).view(-1)[::50] -= 1
    return weight


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            with_tensor(
                f"{Q}.weight", lambda t: torch.nextafter(t[f"{Q}.weight"], torch.tensor(9, dtype=torch.bfloat16))
            ),
            Q,
        ),
        (with_tensor(f"{Q}.weight", toward_zero), Q),
        (with_tensor(f"{GATE}.weight", lambda t: t[f"{UP}.weight"].clone()), GATE),
        (with_tensor("model.norm.weight", lambda t: t["model.norm.weight"].float()), "model.norm.weight"),
        (rewrite(lambda t: {name: tensor.half() for name, tensor in t.items()}), "lm_head.weight"),
    ],
    ids=[
        "the next number",
        "some rounded differently",
        "another layer's",
        "one in another dtype",
        "all in another dtype",
    ],
)
def test_a_file_with_another_tensor_than_was_written_is_refused(change, named, run_of):
    run, recipe = run_of(export={"dtype": "bfloat16"})

    message = refusal(run, recipe, reader=merges.SameProcess(change))

    assert "tensors are not those that were written, such as" in message and named in message


@pytest.mark.parametrize(
    "settings",
    [
        {"rms_norm_eps": 1e-5},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 9e3}},
    ],
    ids=["epsilon", "activation", "rotation"],
)  # fmt: skip
def test_a_config_with_which_correct_weights_compute_another_function_is_refused(settings, run_of):
    run, recipe = run_of(export={"dtype": "bfloat16"})
    reader = merges.SameProcess(lambda folder: merges.change_json(folder / "config.json", **settings))

    message = refusal(run, recipe, reader=reader)

    assert "rounded to bfloat16 and reopened, the merged model is not what was trained" in message


def test_a_forced_merge_lists_its_errors(run_of, wrong_update):
    wrong_update(lambda _layer, update: update * 1.01, UP)
    run, recipe = run_of()

    merges.merged(run, recipe, force=True)

    card = (run.merged / "README.md").read_text()
    assert "Written with --force" in card and f"{UP}.weight: the merged update is off by 1.0e-02" in card
    assert json.loads(run.parity.read_text())["weights"]["worst_update"]["name"] == f"{UP}.weight"
