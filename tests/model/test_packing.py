"""Packed documents: whether a model reads over their borders, found out by running it on them and on each alone.

What a verdict is held against is computed here by other code, on other documents, on the model as it would train.
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

CASES = [
    pytest.param(family, attention, way, id=f"{family}, {attention}")
    for family, (_, _, attentions, way) in FAMILIES.items()
    for attention in attentions
]
MASKED_CASES = [case for case in CASES if case.values[2] == MASKED]


def some_documents():
    """Documents unlike those of the probe: one of a single token, and longer ones behind shorter ones."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in (4, 9, 1, 17)]


def packed_row(documents):
    """Return what a model is given for documents in one row, made without TRL."""
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


def test_enough_families_of_each_kind_are_tried():
    ways = [way for *_, way in FAMILIES.values()]

    assert (ways.count(NATIVE), ways.count(MASKED), ways.count(REFUSED)) == (19, 4, 5)
    assert len(CASES) == 50


@pytest.mark.parametrize(("family", "attention", "way"), CASES)
def test_the_verdict_is_what_other_documents_show(family, attention, way):
    model = make(family, attention).eval()
    before = moved_by_packing(model)

    if way is REFUSED:
        with pytest.raises(PreflightError, match="would let packed documents read each other"):
            pack_safely(model)
    else:
        assert pack_safely(model).way == way

    assert (before < 1e-5) == (way == NATIVE)
    assert (moved_by_packing(model) < 1e-5) == (way is not REFUSED)
    assert way == NATIVE or before > 1  # a leak is a hundred thousand times what is allowed, not a matter of digits


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("family", "attention", "way"), CASES)
def test_the_verdict_is_the_same_in_half_precision(family, attention, way, dtype):
    verdict = probe_packing(make(family, attention, dtype))

    assert verdict.way == way
    assert verdict.tolerance < 0.05 < 0.5 < verdict.reaction  # of a token's length
    assert verdict.difference < verdict.tolerance if way else verdict.difference > 0.5


def test_a_probe_leaves_the_model_and_the_random_numbers_as_they_were():
    model = make("falcon 7b", hidden_dropout=0.1).train()
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    assert probe_packing(model).way == MASKED

    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.rand(1), expected)
    assert moved_by_packing(model.eval()) > 1


@pytest.mark.parametrize(("family", "attention", "way"), MASKED_CASES)
def test_a_mask_that_is_gone_after_the_verdict_is_seen_here(family, attention, way):
    model = make(family, attention).eval()
    pack_safely(model)
    model.get_decoder()._forward_pre_hooks.clear()

    assert moved_by_packing(model) > 1


def test_a_boolean_mask_is_exact_on_sdpa_and_no_mask_at_all_on_eager():
    """Why the mask holds numbers. When this fails, Falcon's eager attention takes a boolean mask too."""
    document = packed_row(some_documents())["seq_idx"]
    boolean = block_diagonal_mask(document, torch.float32) == 0

    assert moved_by_packing(make("falcon 7b", "sdpa").eval(), attention_mask=boolean) < 1e-5
    assert moved_by_packing(make("falcon 7b", "eager").eval(), attention_mask=boolean) > 1


def test_the_probe_refuses_a_boolean_mask_on_eager(monkeypatch):
    monkeypatch.setattr("eyas.model.document_mask.block_diagonal_mask", lambda *given: block_diagonal_mask(*given) == 0)

    assert probe_packing(make("falcon 7b", "sdpa")).way == MASKED
    assert probe_packing(make("falcon 7b", "eager")).way is REFUSED


def test_a_mask_lets_a_token_read_its_own_document_up_to_itself():
    mask = block_diagonal_mask(torch.tensor([[0, 0, 1, 2, 2], [0, 0, 0, 0, 1]]), torch.bfloat16)

    assert mask.shape == (2, 1, 5, 5) and mask.dtype == torch.bfloat16
    assert (mask == 0)[:, 0].int().tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]],
    ]
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.bfloat16).min}


def test_the_mask_is_made_only_for_rows_of_several_documents():
    decoder, restarting = make("falcon 7b").get_decoder(), torch.tensor([[0, 1, 0, 1]])

    assert keep_documents_apart(decoder, (), {}) is None
    assert keep_documents_apart(decoder, (), {"position_ids": torch.arange(4)[None]}) is None
    given = {"position_ids": restarting, "attention_mask": torch.ones(1, 4)}
    assert keep_documents_apart(decoder, (), given) is None
    _, keywords = keep_documents_apart(decoder, (), {"position_ids": restarting, "attention_mask": None})
    assert keywords["attention_mask"].shape == (1, 1, 4, 4) and keywords["position_ids"] is restarting


def test_padded_rows_and_generation_are_what_they_were():
    plain, safe = make("falcon 7b").eval(), make("falcon 7b").eval()
    pack_safely(safe)
    ids = torch.stack([some_documents()[1], some_documents()[1].flip(0)])
    padded = {"input_ids": ids, "attention_mask": (torch.arange(9) < torch.tensor([[9], [5]])).long()}

    assert torch.equal(safe(**padded).logits, plain(**padded).logits)
    settings = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(safe.generate(**padded, **settings), plain.generate(**padded, **settings))


def test_nothing_is_installed_twice_or_where_nothing_is_needed():
    falcon, llama = make("falcon 7b"), make("llama")

    verdicts = [pack_safely(falcon), pack_safely(falcon)]

    assert verdicts[0] == verdicts[1] and verdicts[0].way == MASKED
    assert list(falcon.get_decoder()._forward_pre_hooks.values()) == [keep_documents_apart]
    assert pack_safely(llama).way == NATIVE
    assert not llama.get_decoder()._forward_pre_hooks


@pytest.mark.parametrize("family", ["falcon 7b", "falcon 40b"])
@pytest.mark.parametrize("attention", BOTH)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_packed_gradients_are_those_of_the_documents_alone(family, attention, checkpointing):
    model = make(family, attention).train()
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
def test_the_head_that_trl_trains_with_sees_documents_kept_apart_too(family):
    """It runs the model below the head by itself, and so past whatever stands at the head."""
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
def test_a_peft_wrapper_hides_nothing(before_wrapping):
    model = make("falcon 7b").train()
    adapter = LoraConfig(target_modules=["query_key_value"], lora_dropout=0.3, init_lora_weights=False)
    if before_wrapping:
        pack_safely(model)
    model = get_peft_model(model, adapter)
    verdict = pack_safely(model)

    assert (verdict.model, verdict.way) == ("FalconForCausalLM", MASKED)
    assert list(model.get_decoder()._forward_pre_hooks.values()) == [keep_documents_apart]
    assert moved_by_packing(model.eval()) < 1e-5


@pytest.mark.parametrize("attention", BOTH)
def test_the_mask_fits_a_model_under_autocast(attention):
    """There the float32 mask meets scores in bfloat16."""
    model = make("falcon 7b", attention).eval()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pack_safely(model).way == MASKED
        assert moved_by_packing(model) < 0.05


def test_a_quantized_falcon_keeps_documents_apart_and_can_still_be_trained(models):
    """In evaluation bitsandbytes repacks 4-bit weights on a CPU, and no gradient passes them any more."""
    recipe = Model(name=str(models["falcon7b"]), dtype="float32")
    four_bits = Quantization(load_in_4bit=True, bnb_4bit_use_double_quant=True)
    model = load_model(recipe, four_bits, load_config(recipe), "AutoModelForCausalLM")[0]
    model = get_peft_model(model, LoraConfig(target_modules=["query_key_value"], init_lora_weights=False)).train()
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True  # as on a CPU that has it; elsewhere nothing is repacked
    weights = [layer.weight.data.clone() for layer in layers]

    assert pack_safely(model).way == MASKED

    assert len(layers) == 8
    assert all(torch.equal(layer.weight.data, weight) for layer, weight in zip(layers, weights, strict=True))
    assert moved_by_packing(model) < 1e-5
    together, alone = packed_and_alone(model)
    assert torch.cosine_similarity(together, alone, dim=0) > 1 - 1e-6


def test_a_mask_of_ours_never_takes_the_place_of_a_window():
    """With a window longer than the probe's documents, the mask would look exact and be wrong on longer ones."""
    longer = {"sliding_window": 64}
    model = make("gpt-oss", "eager", **longer).eval()
    assert moved_by_packing(model) > 1

    assert probe_packing(model).way is REFUSED


def test_a_model_that_refuses_packed_rows_is_refused_in_its_own_words(monkeypatch):
    model = make("llama")

    def forward(*_, position_ids=None, original=model.forward, **inputs):
        if position_ids is not None:
            raise ValueError("needs causal_conv1d")
        return original(**inputs)

    monkeypatch.setattr(model, "forward", forward)

    with pytest.raises(PreflightError, match=r"^training\.packing: LlamaForCausalLM refuses a packed row: needs"):
        pack_safely(model)


@pytest.mark.parametrize(("family", "way"), [("llama", NATIVE), ("falcon 7b", MASKED)])
def test_a_faint_model_is_told_by_what_its_layers_do_and_not_by_its_logits(family, way):
    """Its logits move by less than 1e-5 whatever it reads; each layer's share of them is as clear as any other's."""
    assert probe_packing(make(family, initializer_range=1e-4)).way == way

    model = make(family, initializer_range=1e-4)
    leak_one_token(model.model.layers[1].self_attn if family == "llama" else model.transformer.h[1].self_attention)
    assert probe_packing(model).way is REFUSED


@pytest.mark.parametrize("family", ["llama", "falcon 7b"])
def test_a_model_with_one_layer_too_faint_to_show_a_leak_is_refused(family):
    """Its attention gives nothing, so a leak would pass for none."""
    model = make(family)
    attention = model.model.layers[1].self_attn.o_proj if family == "llama" else model.transformer.h[1].self_attention
    torch.nn.init.zeros_(getattr(attention, "dense", attention).weight)

    with pytest.raises(PreflightError, match=r"cannot be told: its attention outputs move by 0 .*training\.packing: f"):
        pack_safely(model)


def test_a_model_that_answers_nan_is_refused():
    model = make("llama")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))

    with pytest.raises(
        PreflightError, match=r"cannot be told: its layer outputs are NaN or infinite; set model\.dtype"
    ):
        pack_safely(model)


@pytest.mark.parametrize("document", [0, 1, 2])
def test_a_packed_document_of_nan_is_refused_wherever_it_stands(document):
    """Python's max(1e-6, nan) is 1e-6."""
    model = make("llama")

    def nan(_module, _inputs, keywords, output):
        if keywords.get("position_ids") is not None:
            output.logits[:, (0, 12, 19)[document]] = float("nan")
        return output

    model.register_forward_hook(nan, with_kwargs=True)

    with pytest.raises(PreflightError, match="NaN or infinite"):
        pack_safely(model)


@pytest.mark.parametrize(("dtype", "way"), [(torch.bfloat16, NATIVE), (torch.float32, REFUSED)], ids=str)
def test_a_last_digit_of_bfloat16_is_a_leak_only_in_float32(dtype, way):
    """A GPU may pick another kernel for a row with borders than for one with padding."""
    model = make("llama", "eager", dtype)

    def another_kernel(_module, _inputs, keywords, output):
        if keywords.get("position_ids") is not None:
            output.logits *= 1 + torch.finfo(torch.bfloat16).eps
        return output

    model.register_forward_hook(another_kernel, with_kwargs=True)
    verdict = probe_packing(model)

    assert verdict.way == way
    assert 0.005 < verdict.difference < 0.01  # of a token's logits


def leak_one_token(attention):
    """Let each token's output have a hundredth of the one before, over borders too."""

    def leak(_module, _inputs, output):
        shifted = torch.nn.functional.pad(output[0], (0, 0, 1, 0))[:, :-1]
        return (output[0] + 1e-2 * shifted, *output[1:])

    attention.register_forward_hook(leak)


def test_a_small_leak_is_a_leak():
    """One layer reads one token over the border, at a hundredth of what its own attention says."""
    model = make("llama").eval()
    leak_one_token(model.model.layers[1].self_attn)

    assert moved_by_packing(model) > 1e-5
    assert probe_packing(model).way is REFUSED


def test_a_refusal_names_the_model_its_attention_and_the_way_out():
    with pytest.raises(PreflightError) as refused:
        pack_safely(make("bloom", "eager"))

    text = str(refused.value)
    assert text.startswith("training.packing: BloomForCausalLM with eager attention would let packed documents read")
    assert text.endswith(
        "set model.attn_implementation: flash_attention_2 where the model supports it, or training.packing: false"
    )


def test_a_verdict_says_how_documents_are_kept_apart():
    native, masked = probe_packing(make("llama")), probe_packing(make("falcon 7b", "eager"))

    assert dataclasses.replace(native, difference=2e-6).text() == (
        "LlamaForCausalLM with sdpa attention keeps packed documents apart by itself "
        "(layer outputs differ by 2e-06 from those of a document alone; 1e-05 allowed)"
    )
    assert masked.text().startswith(
        "FalconForCausalLM with eager attention keeps packed documents apart with a block-diagonal mask"
    )


def test_with_a_cache_even_a_native_family_leaks():
    """Why forward passes say `use_cache=False`; when this fails, they need not."""
    model = make("llama").eval()
    row = packed_row(some_documents()) | {"use_cache": True}

    with torch.no_grad():
        last = model(**row).logits[0, -17:]
        alone = model(some_documents()[-1][None]).logits[0]

    assert (last - alone).abs().max() > 1
