"""Every probe on real weights in every dtype, with and without a fault.

`pytest -s tests/model/probes/test_probes_on_real_weights.py` prints the figures: difference, tolerance and reaction.
Faults are planted in the first layers, with the model's own weights; `sweep` plants them in each layer of the whole
model.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

import planted
from conftest import ROOT
from eyas.model.load import load_config, load_model
from eyas.model.packing_probe import probe_packing
from eyas.model.probes.difference import within
from eyas.model.probes.float32 import in_float32
from eyas.recipe.model import Model, Quantization
from eyas.speed.compact import attention, causal_lm, probe
from eyas.speed.compact.encoder import probe_encoder
from eyas.speed.dequantized_weights import keep_dequantized
from eyas.speed.fused_lora import linear
from eyas.speed.fused_lora.linear import fuse_lora
from eyas.speed.fused_lora.probe import probe_lora
from eyas.speed.fused_lora.shared_inputs import share_inputs

SMOLLM2, MINILM = ROOT / "demo" / "smollm2-135m-instruct", ROOT / "demo" / "minilm-l6"
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:bitsandbytes.*")]
NF4 = Quantization(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
KINDS = {
    "float32": ("float32", None), "bfloat16": ("bfloat16", None), "float16": ("float16", None),
    "NF4": ("bfloat16", NF4), "int8": ("float16", Quantization(load_in_8bit=True)),
}  # fmt: skip
RARE = ("float16", "int8")
SWEPT = [pytest.param(kind, marks=pytest.mark.sweep if kind in RARE else ()) for kind in KINDS]
NOT_IN_8_BITS = [kind for kind in KINDS if kind != "int8"]
SHORT, WHOLE = 4, 30
WINDOW = 4


def smollm2(kind, layers, attention="sdpa", **config):
    dtype, quantization = KINDS[kind]
    recipe = Model(name=str(SMOLLM2), dtype=dtype, attn_implementation=attention)
    settings = load_config(recipe)
    settings.num_hidden_layers = layers
    if config:  # Mistral's weights have the names of Llama's, and it has a window
        import transformers

        settings = transformers.MistralConfig(**settings.to_dict() | {"model_type": "mistral"} | config)
    return load_model(recipe, quantization, settings, "AutoModelForCausalLM")[0]


@cache
def short(kind):
    return smollm2(kind, SHORT)


@cache
def minilm(kind):
    dtype, quantization = KINDS[kind]
    recipe = Model(name=str(MINILM), dtype=dtype, attn_implementation="sdpa")
    torch.manual_seed(0)
    config = load_config(recipe, ["negative", "neutral", "positive"])
    in_full = ["classifier"] if quantization else []
    return load_model(recipe, quantization, config, "AutoModelForSequenceClassification", in_full)[0]


def show(*words):
    print("\n" + " | ".join(f"{word:.1e}" if isinstance(word, float) else str(word) for word in words), end="")


def packing_result(model, kind, fault):
    result = probe_packing(model)
    show(type(model).__name__, kind, "packing", fault, result.where, result.difference, result.tolerance,
        result.reaction)  # fmt: skip
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_real_model_keeps_packed_documents_apart_and_its_compact_batches_are_exact(kind, monkeypatch):
    model = smollm2(kind, WHOLE)

    packing = packing_result(model, kind, "sound")
    add_fused_lm_head(model)
    compact = [compact_result(model, kind, mode, "sound", monkeypatch).mode for mode in ("attention", "mask")]

    assert packing.mode == "native" and packing.tolerance < 0.06 and packing.reaction > 0.25
    assert compact == ["attention", "mask"]


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_real_model_keeps_packed_documents_apart_with_eager_attention(kind):
    assert packing_result(smollm2(kind, WHOLE, "eager"), kind, "sound").mode == "native"


FAULTS = {
    "a first token reads the last before, first layer": (planted.a_first_token_reads_the_last_before, [0]),
    "a first token reads the last before, last layer": (planted.a_first_token_reads_the_last_before, [SHORT - 1]),
    "the last token reads the very first, one layer": (planted.the_last_token_reads_the_very_first, [2]),
    "last tokens miss their first": (planted.last_tokens_miss_their_first, range(SHORT)),
    "a position is off by one": (planted.a_position_is_off_by_one, range(SHORT)),
}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        pytest.param(kind, fault, marks=pytest.mark.sweep if kind in RARE and "first layer" not in fault else ())
        for kind in KINDS
        for fault in FAULTS
    ],
)
def test_small_fault_in_packing_is_refused(kind, fault):
    take_out = planted.plant(short(kind), *FAULTS[fault])
    try:
        result = packing_result(short(kind), kind, fault)
    finally:
        take_out()

    assert result.mode is None and result.difference > 2 * result.tolerance
    assert "would let packed documents read each other" in result.text()


@pytest.mark.parametrize("kind", SWEPT)
def test_window_that_is_off_by_one_is_refused(kind):
    model = smollm2(kind, 2, sliding_window=WINDOW)
    assert packing_result(model, kind, "sound, with a window").mode == "native"

    planted.plant(model, planted.window_off_by_one(WINDOW), [1])

    assert packing_result(model, kind, "window off by one, one layer").mode is None


@pytest.mark.sweep
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_token_over_a_border_is_detected_in_each_layer(kind, attention):
    model = smollm2(kind, WHOLE, attention)
    for layer in range(WHOLE):
        take_out = planted.plant(model, planted.a_first_token_reads_the_last_before, [layer])
        assert packing_result(model, kind, f"a first token reads the last before, layer {layer}").mode is None
        take_out()


def compact_result(model, kind, mode, fault, monkeypatch):
    monkeypatch.setattr(probe, "_modes", lambda _: [mode])
    with in_float32(model):
        result = probe.probe_compact(model, True)
    show(type(model).__name__, kind, f"compact batches by {mode}", fault, "log-probabilities", result.difference,
        result.tolerance, result.reaction)  # fmt: skip
    return result


def attention_that_leaks(layer):
    """Planted fault: in one layer, the second document's first own token reads the first document's last."""
    right = attention.attention

    def leaking(module, query, key, value, *more, **kwargs):
        output, _ = right(module, query, key, value, *more, **kwargs)
        if attention.Current.layout is None or module.layer_idx != layer:
            return output, None
        group = attention.Current.layout.groups[0]
        token = group.prefix + group.suffixes[0]
        read = [*range(group.prefix), token, token - 1]
        together = query.shape[1] // key.shape[1]
        keys, values = (each[0, :, read].repeat_interleave(together, dim=0) for each in (key, value))
        weights = torch.einsum("hd,hkd->hk", query[0, :, token] * kwargs["scaling"], keys).softmax(dim=-1)
        output = output.clone()
        output[0, token] = torch.einsum("hk,hkd->hd", weights, values)
        return output, None

    return leaking


def mask_that_leaks(layout, *more):
    mask = real_mask(layout, *more)
    token = layout.groups[0].prefix + layout.groups[0].suffixes[0]
    mask[..., token, token - 1] = 0
    return mask


def position_off_by_one(*given):
    layout = real_layout(*given)
    positions = layout.position_ids.clone()
    positions[0, 6] += 1
    return replace(layout, position_ids=positions)


real_mask, real_layout = causal_lm.mask_of, causal_lm.layout_of
COMPACT_FAULTS = {
    **{f"one token leaks, layer {layer}": ("attention", attention, "attention", attention_that_leaks(layer))
       for layer in (0, SHORT - 1)},
    "one token leaks": ("mask", causal_lm, "mask_of", mask_that_leaks),
    "a position is off by one": ("attention", causal_lm, "layout_of", position_off_by_one),
}  # fmt: skip


@pytest.mark.parametrize("fault", COMPACT_FAULTS)
@pytest.mark.parametrize("kind", SWEPT)
def test_small_fault_in_compact_batches_is_detected(kind, fault, monkeypatch):
    mode, module, name, wrong = COMPACT_FAULTS[fault]
    monkeypatch.setattr(module, name, wrong)
    model = short(kind)
    if not hasattr(model, "has_the_head"):
        add_fused_lm_head(model)
        model.has_the_head = True

    result = compact_result(model, kind, mode, fault, monkeypatch)

    assert result.mode is None and result.difference > 10 * result.tolerance


def encoder_figures(kind, fault):
    with in_float32(minilm(kind)):
        difference, tolerance = probe_encoder(minilm(kind))
    show("BertForSequenceClassification", kind, "compact batches", fault, "tokens and scores", difference, tolerance)
    return difference, tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_real_encoder_without_padding_is_exact(kind):
    assert within(*encoder_figures(kind, "sound"))


@pytest.mark.parametrize("token", [0, 1])
@pytest.mark.parametrize("layer", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_token_that_reads_one_place_of_padding_is_detected(kind, layer, token, monkeypatch):
    right, calls = attention._reading, []

    def reads_padding(q, k, v, readable, *more):
        if len(readable) > 1:
            calls.append(0)
            padding = (~readable[0, 0, 0]).nonzero()
            if (len(calls) - 1) % 6 == layer:
                readable = readable.expand(-1, -1, q.shape[2], -1).clone()
                readable[0, 0, token, padding[0]] = True
        return right(q, k, v, readable, *more)

    monkeypatch.setattr(attention, "_reading", reads_padding)
    difference, tolerance = encoder_figures(kind, f"token {token} reads padding, layer {layer}")

    assert len(calls) == 6 and difference > 100 * tolerance


def adapted(kind, base, dense=False):
    model = smollm2(kind, 2) if base == "smollm2" else minilm.__wrapped__(kind)
    if dense:
        keep_dequantized(model, 2**31)
    targets = "all-linear" if base == "smollm2" else ["query", "key", "value"]
    task = "CAUSAL_LM" if base == "smollm2" else "SEQ_CLS"
    model = get_peft_model(model, LoraConfig(task_type=task, r=16, lora_alpha=32, target_modules=targets)).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    fused, layers = fuse_lora(model)
    if fused:
        share_inputs(model)
    return model, fused, layers


def scaled(part):
    return replace(part, scaling=1.01 * part.scaling)


@pytest.mark.parametrize("base", ["smollm2", "minilm"])
@pytest.mark.parametrize(("kind", "dense"), [*((kind, False) for kind in NOT_IN_8_BITS), ("NF4", True)])
def test_fused_adapter_passes_and_one_scaled_by_one_percent_fails(base, kind, dense, monkeypatch):
    model, fused, layers = adapted(kind, base, dense)
    assert fused == layers > 0
    sound = probe_lora(model)
    show(base, kind, "fused LoRA", "sound", "outputs and gradients", *sound)
    right = linear._part
    monkeypatch.setattr(linear, "_part", lambda *given: scaled(right(*given)))

    wrong = probe_lora(model)
    show(base, kind, "fused LoRA", "scaling off by 1 %", "outputs and gradients", *wrong)

    assert within(*sound)
    assert wrong[0] > 100 * wrong[1]


def test_8_bit_layer_is_left_to_peft():
    assert adapted("int8", "smollm2")[1] == 0
