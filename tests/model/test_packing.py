"""The packing probe and its mask, compared with documents alone.

Expected results come from other code, on other documents, on the model as it would train.
"""

import dataclasses

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from eyas.errors import PreflightError
from eyas.model.document_mask import block_diagonal_mask, keep_documents_apart
from eyas.model.load import load_config, load_model
from eyas.model.packing import pack_safely
from eyas.model.packing_probe import probe_packing
from eyas.recipe.model import Model, Quantization
from families import BOTH, FAMILIES, MASKED, NATIVE, REFUSED, VOCABULARY, make

pytestmark = pytest.mark.slow

CASES = [
    pytest.param(family, attention, mode, id=f"{family}, {attention}")
    for family, (_, _, attentions, mode) in FAMILIES.items()
    for attention in attentions
]
# ALiBi's biases grow with the position in the row, and half precision rounds them by more than the tolerance.
HALF_CASES = [case for case in CASES if case.values[0] != "falcon alibi"]
MASKED_CASES = [case for case in CASES if case.values[2] == MASKED]


def some_documents():
    """Documents unlike the probe's: one of a single token, and longer ones after shorter ones."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in (4, 9, 1, 17)]


def packed_row(documents):
    """Return the model's inputs for documents in one row, made without TRL."""
    lengths = torch.tensor([len(document) for document in documents])
    borders = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    return {
        "input_ids": torch.cat(documents)[None],
        "position_ids": torch.cat([torch.arange(len(document)) for document in documents])[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
        "seq_idx": torch.arange(len(documents)).repeat_interleave(lengths).int()[None],
        "use_cache": False,
    }


@torch.no_grad()
def moved_by_packing(model, **more):
    """Return the largest change of a logit when documents are packed."""
    documents = some_documents()
    together = model(**packed_row(documents), **more).logits[0].split([len(document) for document in documents])
    alone = [model(document[None], use_cache=False).logits[0] for document in documents]
    return max((one - other).abs().max().item() for one, other in zip(together, alone, strict=True))


def gradients(model, rows):
    """Return the gradient of the summed loss over rows of (inputs, labels), as one vector."""
    model.zero_grad()
    for inputs, labels in rows:
        logits = model(**inputs).logits[0, :-1].float()
        torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum").backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def packed_and_alone(model):
    """Return the gradients of one packed row and of its documents alone."""
    documents = some_documents()
    labels = torch.cat([torch.cat([torch.tensor([-100]), document[1:]]) for document in documents])
    together = gradients(model, [(packed_row(documents), labels)])
    separate = [({"input_ids": d[None], "use_cache": False}, d) for d in documents if len(d) > 1]
    return together, gradients(model, separate)


def test_enough_families_of_each_kind_are_probed():
    modes = [mode for *_, mode in FAMILIES.values()]

    assert (modes.count(NATIVE), modes.count(MASKED), modes.count(REFUSED)) == (22, 2, 4)
    assert len(CASES) == 50


@pytest.mark.parametrize(("family", "attention", "mode"), CASES)
def test_probe_result_agrees_with_other_documents(family, attention, mode):
    model = make(family, attention).eval()
    before = moved_by_packing(model)

    if mode is REFUSED:
        with pytest.raises(PreflightError, match="would let packed documents read each other"):
            pack_safely(model)
    else:
        assert pack_safely(model).mode == mode

    assert (before < 1e-5) == (mode == NATIVE)
    assert (moved_by_packing(model) < 1e-5) == (mode is not REFUSED)
    assert mode == NATIVE or before > 1  # a leak is a hundred thousand times the tolerance


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("family", "attention", "mode"), HALF_CASES)
def test_probe_result_is_the_same_in_half_precision(family, attention, mode, dtype):
    result = probe_packing(make(family, attention, dtype))

    assert result.mode == mode
    assert result.tolerance < 0.05 < 0.5 < result.reaction  # of a token's length
    assert result.difference < result.tolerance if mode else result.difference > 0.5


def test_probe_restores_the_model_and_the_random_state():
    model = make("opt", dropout=0.1).train()
    model.model.decoder.layers[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    assert probe_packing(model).mode == MASKED

    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.rand(1), expected)
    assert moved_by_packing(model.eval()) > 1


@pytest.mark.parametrize(("family", "attention", "mode"), MASKED_CASES)
def test_removed_mask_is_detected_by_this_files_own_check(family, attention, mode):
    model = make(family, attention).eval()
    pack_safely(model)
    model.get_decoder()._forward_pre_hooks.clear()

    assert moved_by_packing(model) > 1


def test_boolean_mask_is_exact_on_sdpa_and_without_effect_on_eager():
    """The mask holds numbers for this reason. When this fails, OPT's eager attention takes a boolean mask too."""
    document = packed_row(some_documents())["seq_idx"]
    boolean = block_diagonal_mask(document, torch.float32) == 0

    assert moved_by_packing(make("opt", "sdpa").eval(), attention_mask=boolean) < 1e-5
    assert moved_by_packing(make("opt", "eager").eval(), attention_mask=boolean) > 1


def test_probe_refuses_a_boolean_mask_on_eager(monkeypatch):
    monkeypatch.setattr("eyas.model.document_mask.block_diagonal_mask", lambda *given: block_diagonal_mask(*given) == 0)

    assert probe_packing(make("opt", "sdpa")).mode == MASKED
    assert probe_packing(make("opt", "eager")).mode is REFUSED


def test_mask_lets_a_token_read_its_own_document_up_to_itself():
    mask = block_diagonal_mask(torch.tensor([[0, 0, 1, 2, 2], [0, 0, 0, 0, 1]]), torch.bfloat16)

    assert mask.shape == (2, 1, 5, 5) and mask.dtype == torch.bfloat16
    assert (mask == 0)[:, 0].int().tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]],
    ]
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.bfloat16).min}


def test_mask_is_made_only_for_rows_of_several_documents():
    decoder, restarting = make("opt").get_decoder(), torch.tensor([[0, 1, 0, 1]])

    assert keep_documents_apart(decoder, (), {}) is None
    assert keep_documents_apart(decoder, (), {"position_ids": torch.arange(4)[None]}) is None
    given = {"position_ids": restarting, "attention_mask": torch.ones(1, 4)}
    assert keep_documents_apart(decoder, (), given) is None
    _, keywords = keep_documents_apart(decoder, (), {"position_ids": restarting, "attention_mask": None})
    assert keywords["attention_mask"].shape == (1, 1, 4, 4) and keywords["position_ids"] is restarting


def test_padded_rows_and_generation_stay_the_same():
    plain, safe = make("opt").eval(), make("opt").eval()
    pack_safely(safe)
    ids = torch.stack([some_documents()[1], some_documents()[1].flip(0)])
    padded = {"input_ids": ids, "attention_mask": (torch.arange(9) < torch.tensor([[9], [5]])).long()}

    assert torch.equal(safe(**padded).logits, plain(**padded).logits)
    settings = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(safe.generate(**padded, **settings), plain.generate(**padded, **settings))


def test_mask_is_installed_once_and_only_where_needed():
    opt, llama = make("opt"), make("llama")

    results = [pack_safely(opt), pack_safely(opt)]

    assert results[0] == results[1] and results[0].mode == MASKED
    assert list(opt.get_decoder()._forward_pre_hooks.values()) == [keep_documents_apart]
    assert pack_safely(llama).mode == NATIVE
    assert not llama.get_decoder()._forward_pre_hooks


WITHOUT_DROPOUT = {
    "opt": {"dropout": 0.0},
    "biogpt": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


@pytest.mark.parametrize("family", WITHOUT_DROPOUT)
@pytest.mark.parametrize("attention", BOTH)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_packed_gradients_are_those_of_the_documents_alone(family, attention, checkpointing):
    model = make(family, attention, **WITHOUT_DROPOUT[family]).train()
    leaking, _ = packed_and_alone(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    pack_safely(model)

    together, alone = packed_and_alone(model)

    assert model.is_gradient_checkpointing == checkpointing
    assert torch.cosine_similarity(together, alone, dim=0) > 1 - 1e-6
    assert (together - alone).abs().max() < 1e-4 * alone.abs().max()
    assert torch.cosine_similarity(leaking, alone, dim=0) < 0.95


@pytest.mark.parametrize("family", ["falcon 7b", "opt", "llama"])
@torch.no_grad()
def test_trls_fused_head_keeps_documents_apart_too(family):
    """It calls the model below the head, so hooks on the head would not run."""
    model = make(family).eval()
    add_fused_lm_head(model)
    pack_safely(model)
    documents = [document for document in some_documents() if len(document) > 1]

    def log_probs(inputs):
        return model(**inputs, labels=inputs["input_ids"], fused_lm_head=True).log_probs[0]

    together = log_probs(packed_row(documents))
    ends = torch.tensor([len(document) for document in documents]).cumsum(0)
    within = torch.arange(len(together))[~torch.isin(torch.arange(1, len(together) + 1), ends)]
    alone = torch.cat([log_probs({"input_ids": document[None]}) for document in documents])

    assert (together[within] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("before_wrapping", [True, False])
def test_peft_wrapper_hides_nothing(before_wrapping):
    model = make("opt").train()
    adapter = LoraConfig(target_modules=["q_proj"], lora_dropout=0.3, init_lora_weights=False)
    if before_wrapping:
        pack_safely(model)
    model = get_peft_model(model, adapter)
    result = pack_safely(model)

    assert (result.model, result.mode) == ("OPTForCausalLM", MASKED)
    assert list(model.get_decoder()._forward_pre_hooks.values()) == [keep_documents_apart]
    assert moved_by_packing(model.eval()) < 1e-5


@pytest.mark.parametrize("attention", BOTH)
def test_mask_works_under_autocast(attention):
    """A float32 mask is added to scores in bfloat16."""
    model = make("opt", attention).eval()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pack_safely(model).mode == MASKED
        assert moved_by_packing(model) < 0.05


def test_quantized_falcon_keeps_documents_apart_and_can_still_be_trained(models):
    """In evaluation mode on a CPU, bitsandbytes repacks 4-bit weights, which then pass no gradient."""
    recipe = Model(name=str(models["falcon7b"]), dtype="float32")
    four_bits = Quantization(load_in_4bit=True, bnb_4bit_use_double_quant=True)
    model = load_model(recipe, four_bits, load_config(recipe), "AutoModelForCausalLM")[0]
    model = get_peft_model(model, LoraConfig(target_modules=["query_key_value"], init_lora_weights=False)).train()
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True  # as on a CPU with AVX512-BF16; others repack nothing
    weights = [layer.weight.data.clone() for layer in layers]

    assert pack_safely(model).mode == NATIVE

    assert len(layers) == 8
    assert all(torch.equal(layer.weight.data, weight) for layer, weight in zip(layers, weights, strict=True))
    assert moved_by_packing(model) < 1e-5
    together, alone = packed_and_alone(model)
    assert torch.cosine_similarity(together, alone, dim=0) > 1 - 1e-6


def test_mask_never_replaces_a_window():
    """With a window longer than the probe's documents, the mask would look exact and be wrong on longer ones."""
    longer = {"sliding_window": 64}
    model = make("gpt-oss", "eager", **longer).eval()
    assert moved_by_packing(model) > 1

    assert probe_packing(model).mode is REFUSED


def test_models_own_refusal_of_packed_rows_is_quoted(monkeypatch):
    model = make("llama")

    def forward(*_, position_ids=None, original=model.forward, **inputs):
        if position_ids is not None:
            raise ValueError("needs causal_conv1d")
        return original(**inputs)

    monkeypatch.setattr(model, "forward", forward)

    with pytest.raises(PreflightError, match=r"^training\.packing: LlamaForCausalLM refuses a packed row: needs"):
        pack_safely(model)


@pytest.mark.parametrize(("family", "mode"), [("llama", NATIVE), ("opt", MASKED)])
def test_model_with_tiny_logits_is_judged_by_its_layers(family, mode):
    """Its logits move by less than 1e-5 whatever it reads; each layer's output shows it."""
    tiny = {"initializer_range" if family == "llama" else "init_std": 1e-4}
    assert probe_packing(make(family, **tiny)).mode == mode

    model = make(family, **tiny)
    leak_one_token(model.get_decoder().layers[1].self_attn)
    assert probe_packing(model).mode is REFUSED


@pytest.mark.parametrize("family", ["llama", "falcon 7b"])
def test_model_with_one_layer_that_cannot_show_a_leak_is_refused(family):
    """Its attention returns zeros, so a leak would be invisible."""
    model = make(family)
    attention = model.model.layers[1].self_attn.o_proj if family == "llama" else model.transformer.h[1].self_attention
    torch.nn.init.zeros_(getattr(attention, "dense", attention).weight)

    with pytest.raises(PreflightError, match=r"cannot tell whether .*outputs move by 0 .*training\.packing: f"):
        pack_safely(model)


def test_model_with_nan_is_refused():
    model = make("llama")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))

    with pytest.raises(
        PreflightError, match=r"cannot tell whether .*: its layer outputs are NaN or Inf; set model\.dtype"
    ):
        pack_safely(model)


@pytest.mark.parametrize("document", [0, 1, 2])
def test_nan_in_any_packed_document_is_refused(document):
    """Python's max(1e-6, nan) is 1e-6."""
    model = make("llama")

    def nan(_module, _inputs, keywords, output):
        if keywords.get("position_ids") is not None:
            output.logits[:, (0, 12, 19)[document]] = float("nan")
        return output

    model.register_forward_hook(nan, with_kwargs=True)

    with pytest.raises(PreflightError, match="NaN or Inf"):
        pack_safely(model)


@pytest.mark.parametrize(("dtype", "mode"), [(torch.bfloat16, NATIVE), (torch.float32, REFUSED)], ids=str)
def test_last_digit_of_bfloat16_is_a_leak_only_in_float32(dtype, mode):
    """A GPU may pick another kernel for a row with borders than for one with padding."""
    model = make("llama", "eager", dtype)

    def another_kernel(_module, _inputs, keywords, output):
        if keywords.get("position_ids") is not None:
            output.logits *= 1 + torch.finfo(torch.bfloat16).eps
        return output

    model.register_forward_hook(another_kernel, with_kwargs=True)
    result = probe_packing(model)

    assert result.mode == mode
    assert 0.005 < result.difference < 0.01  # of a token's logits


def leak_one_token(attention):
    """Add a hundredth of the previous token's output to each token's, over borders too."""

    def leak(_module, _inputs, output):
        shifted = torch.nn.functional.pad(output[0], (0, 0, 1, 0))[:, :-1]
        return (output[0] + 1e-2 * shifted, *output[1:])

    attention.register_forward_hook(leak)


def test_small_leak_is_detected():
    """One layer reads one token over the border, at a hundredth of its own attention."""
    model = make("llama").eval()
    leak_one_token(model.model.layers[1].self_attn)

    assert moved_by_packing(model) > 1e-5
    assert probe_packing(model).mode is REFUSED


def test_refusal_names_the_model_its_attention_and_the_settings_that_help():
    with pytest.raises(PreflightError) as refused:
        pack_safely(make("bloom", "eager"))

    text = str(refused.value)
    assert text.startswith("training.packing: BloomForCausalLM with eager attention would let packed documents read")
    assert text.endswith(
        "set model.attn_implementation: flash_attention_2 where the model supports it, or training.packing: false"
    )


def test_probe_result_names_its_mode():
    native, masked = probe_packing(make("llama")), probe_packing(make("opt", "eager"))

    assert dataclasses.replace(native, difference=2e-6).text() == (
        "LlamaForCausalLM with sdpa attention keeps packed documents apart by itself "
        "(layer outputs differ by 2e-06 from those of a document alone; tolerance 1e-05)"
    )
    assert masked.text().startswith(
        "OPTForCausalLM with eager attention keeps packed documents apart with a block-diagonal mask"
    )


def test_with_a_cache_even_a_native_family_leaks():
    """Forward passes set `use_cache=False` for this reason; when this fails, they need not."""
    model = make("llama").eval()
    row = packed_row(some_documents()) | {"use_cache": True}

    with torch.no_grad():
        last = model(**row).logits[0, -17:]
        alone = model(some_documents()[-1][None]).logits[0]

    assert (last - alone).abs().max() > 1
