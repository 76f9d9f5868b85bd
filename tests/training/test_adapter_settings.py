"""Adapter settings on each kind of base: saved, reopened, resumed and merged, or refused."""

import shutil
from functools import partial

import pytest
import torch

import stand_ins
from conftest import ROOT
from eyas.data.splits import tensors
from eyas.errors import ExportError, PreflightError, RecipeError
from eyas.evaluation.evaluate import held_out
from eyas.export.fresh_process import compare_saved
from eyas.export.merge import merge
from eyas.export.reference import FinishedRun
from eyas.model.adapter import METHODS
from eyas.model.probes.float32 import in_float32
from eyas.model.trained import load_base, load_tuned
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.selftest.compare_runs import first_difference
from eyas.training.resume.run_folder import refuse_foreign_folder
from eyas.training.run import train
from eyas.training.save import save_and_reopen

RECIPES = {"llama": "smollm2_qlora_quickstart", "falcon": "falcon7b_qlora"}
BASES = {
    "float32": ["quantization=null", "model.dtype=float32"],
    "bf16": ["quantization=null", "model.dtype=bfloat16"],
    "nf4": ["model.dtype=bfloat16"],
}
WORKS = {
    "llama": {
        "DoRA": ["use_dora=true"],
        "DoRA with dropout": ["use_dora=true", "lora_dropout=0.1"],
        "rsLoRA": ["use_rslora=true"],
        "embeddings": ["target_modules=[q_proj, embed_tokens]"],
        "embeddings, DoRA": ["target_modules=[q_proj, embed_tokens]", "use_dora=true"],
        "embeddings in full": ["modules_to_save=[embed_tokens]"],
        "embeddings in full, tied": ["modules_to_save=[embed_tokens]", "ensure_weight_tying=true"],
        "head in full": ["modules_to_save=[lm_head]"],
        "both in full": ["modules_to_save=[embed_tokens, lm_head]"],
        "norm in full": ["modules_to_save=[norm]"],
        "tokens": ["trainable_token_indices=[1, 2, 30]"],
        "patterns": ["rank_pattern={q_proj: 4}", "alpha_pattern={q_proj: 64}"],
        "a layer": ["layers_to_transform=[0]"],
        "all but": ["target_modules=all-linear", "exclude_modules=[q_proj]"],
        "gaussian": ["init_lora_weights=gaussian"],
        "random B": ["init_lora_weights=false"],
        "block-diagonal": ["use_bdlora={target_modules_bd_a: [o_proj], nblocks: 2, match_strict: false}"],
        "PiSSA": ["init_lora_weights=pissa"],
        "PiSSA, fast": ["init_lora_weights=pissa_niter_4"],
        "OLoRA": ["init_lora_weights=olora"],
        "orthogonal": ["init_lora_weights=orthogonal"],
        "MiCA": ["init_lora_weights=mica"],
        "VeLoRA": ["velora_config={num_groups: 4}"],
        "parameters": ["target_modules=[]", "target_parameters=[q_proj.weight]"],
        "IA3": ["adapter={method: ia3, target_modules: [k_proj, v_proj, down_proj], feedforward_modules: [down_proj]}"],
        "VeRA": ["adapter={method: vera, r: 8, d_initial: 1.0}"],
        "prompt tuning": ["adapter={method: prompt_tuning, num_virtual_tokens: 4}"],
        "prompt tuning, head in full": ["adapter={method: prompt_tuning, modules_to_save: [lm_head]}"],
    },
    "falcon": {
        "DoRA": ["use_dora=true"],
        "biases": ["bias=all"],
        "embeddings": ["target_modules=[query_key_value, word_embeddings]"],
        "embeddings in full": ["modules_to_save=[word_embeddings]"],
        "tokens": ["trainable_token_indices=[1, 2]"],
        "IA3": ["adapter={method: ia3, target_modules: [query_key_value], feedforward_modules: []}"],
        "VeRA": ["adapter={method: vera, r: 8, d_initial: 1.0}"],
        "prompt tuning": ["adapter={method: prompt_tuning, prompt_tuning_init: RANDOM}"],
    },
}
FULL_PRECISION = "needs a base in full precision; remove it or the quantization"
REFUSED = {
    ("llama", "PiSSA", "nf4"): FULL_PRECISION,
    ("llama", "PiSSA, fast", "nf4"): FULL_PRECISION,
    ("llama", "OLoRA", "bf16"): "olora needs model.dtype: float32; it is not saved exactly in others",
    ("llama", "OLoRA", "nf4"): "olora needs model.dtype: float32; it is not saved exactly in others",
    ("llama", "orthogonal", "nf4"): FULL_PRECISION,
    ("llama", "MiCA", "nf4"): FULL_PRECISION,
    ("llama", "VeLoRA", "nf4"): "adapter: peft refuses it: Linear4bit does not support VeLoRA",
    # peft 0.21 puts plain LoRA on 4-bit layers, and would open it as block-diagonal on the dequantized ones.
    ("llama", "block-diagonal", "nf4"): "adapter: an adapter with these settings cannot be saved and reopened",
}
"""Settings of `WORKS` that one kind of base does not support, with the refusal."""

NOWHERE = {
    "head": (["target_modules=[q_proj, lm_head]"], "adapter.target_modules: a low-rank update of the output head"),
    "tied embeddings": (
        ["target_modules=[q_proj, embed_tokens]", "ensure_weight_tying=true"],
        "Remove adapter.ensure_weight_tying, which puts one there",
    ),
    "tokens of adapted embeddings": (
        ["target_modules=[q_proj, embed_tokens]", "trainable_token_indices=[1]"],
        "adapter.trainable_token_indices: peft refuses it: trainable_token_indices cannot be applied to modules",
    ),
    "tokens of trained embeddings": (
        ["modules_to_save=[embed_tokens]", "trainable_token_indices={embed_tokens: [1]}"],
        "adapter.modules_to_save: peft refuses it: The embedding layer is already marked",
    ),
    "LoRA's bias without a bias": (
        ["lora_bias=true"],
        "adapter.lora_bias: peft refuses it: `lora_bias=True` was passed but the targeted layer of type Linear has no",
    ),
    "LoRA's bias with DoRA": (["lora_bias=true", "use_dora=true"], "adapter.lora_bias: peft refuses it: The argument"),
    "no bias": (["bias=all"], "adapter.bias: all would train no bias"),
    "no bias in its layers": (["bias=lora_only"], "adapter.bias: lora_only would train no bias"),
    "a norm": (["target_modules=[input_layernorm]"], "adapter: peft refuses it: Target module LlamaRMSNorm"),
    "a container": (["target_modules=[self_attn]"], "adapter: peft refuses it: Target module LlamaAttention"),
    "a parameter twice": (
        ["target_parameters=[q_proj.weight]"], "peft refuses it: Trying to wrap an `nn.Parameter` of layer"
    ),
    "no parameter": (
        ["target_parameters=[q_proj.wait]"], r"adapter.target_parameters: 'q_proj.wait \(parameter\)' matches no module"
    ),
    "none excluded": (["exclude_modules=[qq_proj]"], "adapter.exclude_modules: 'qq_proj' matches no module"),
    "nothing to tie": (["ensure_weight_tying=true"], "adapter.ensure_weight_tying: peft refuses it: You have"),
    "a pattern of another layer": (["rank_pattern={gate_proj: 4}"], "adapter.rank_pattern: 'gate_proj' matches no"),
    "layers and a pattern": (
        ["target_modules=all-linear", "layers_to_transform=[0]"], "adapter.layers_to_transform: peft refuses it"
    ),
    "odd orthogonal": (["init_lora_weights=orthogonal", "r=3"], "adapter: peft refuses it: Orthogonal initialization"),
}  # fmt: skip
"""Settings that no kind of base supports, with the refusal."""

NEVER = {
    "init_lora_weights=eva": "needs a pass over the data before training",
    "init_lora_weights=corda": "needs a pass over the data before training",
    "init_lora_weights=loftq": "use the quantization section",
    "init_lora_weights=pissa_niter_": "should be",
    "eva_config={rho: 2.0}": "needs a pass over the data",
    "loftq_config={loftq_bits: 4}": "use the quantization section",
    "kasa_config={}": "its loss terms would not be added",
    "monteclora_config={}": "its loss terms would not be added",
    "alora_invocation_tokens=[1]": "cannot be merged",
    "layer_replication=[[0, 2]]": "cannot be merged",
    "arrow_config={}": "routes between several trained adapters",
    "use_qalora=true": "GPTQ bases",
    "megatron_core=other": "does not train with Megatron",
    "runtime_config={ephemeral_gpu_offload: true}": "is not saved",
}
"""Settings that the recipe refuses, in the file and at the key."""

QUICK = {
    ("llama", "DoRA", "bf16"), ("llama", "DoRA", "nf4"), ("llama", "embeddings", "nf4"), ("llama", "tokens", "nf4"),
    ("llama", "norm in full", "bf16"), ("llama", "both in full", "float32"),
    ("llama", "PiSSA", "bf16"), ("llama", "parameters", "float32"),
    ("falcon", "biases", "bf16"), ("falcon", "biases", "nf4"), ("falcon", "embeddings", "float32"),
    ("llama", "IA3", "bf16"), ("llama", "VeRA", "nf4"), ("llama", "prompt tuning", "bf16"),
}  # fmt: skip
CELLS = [
    (family, name, base)
    for family, settings in WORKS.items()
    for name in settings
    for base in BASES
    if (family, name, base) not in REFUSED
]
OPENED = {"llama": 1e-5, "falcon": 1e-4}
"""Largest difference of a reopened model, relative to the largest logit. Falcon keeps rotary angles in its dtype."""
IDS = torch.arange(1, 41)[None]


@pytest.fixture
def run_of(models, tmp_path):
    """Train a family's stand-in with adapter settings on a kind of base."""

    def start(family, settings, base, *more, resume=False):
        words = [word if word.startswith("adapter=") else f"adapter.{word}" for word in settings]
        recipe = load_recipe(ROOT / "recipes" / f"{RECIPES[family]}.yaml", [
            f"model.name={models['smollm2' if family == 'llama' else 'falcon7b']}",
            *(f"data.{split}={{path: {_rows(tmp_path, family)}}}" for split in ("train", "evaluation")),
            "training.max_steps=4", "training.save_steps=2", "training.warmup_steps=0", "training.logging_steps=1",
            "training.max_length=128", "training.learning_rate=0.02", "training.packing=false",
            "training.global_batch_size=4", "training.per_device_train_batch_size=4", "export.dtype=float32",
            "evaluation.max_new_tokens=8", f"data.cache_directory={tmp_path / 'prepared'}",
            "data.limits={overlap: 1.0}", f"run_directory={tmp_path / 'run'}", *BASES[base], *words, *more,
        ])  # fmt: skip
        run = RunDirectory(tmp_path / "run")
        train(recipe, run, resume)
        return run, recipe

    return start


def _rows(folder, family):
    file = folder / "rows.jsonl"
    return file if file.exists() else (stand_ins.chat_rows if family == "llama" else stand_ins.text_rows)(file)


@pytest.fixture
def trained_logits(monkeypatch):
    """Return the trained model's logits in float32, taken before the save."""
    found = []

    def first_ask(trainer, *given):
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        model.eval()
        with in_float32(model):
            found.append(logits(partial(type(model).forward, model)))  # within accelerate's autocast
        return save_and_reopen(trainer, *given)

    monkeypatch.setattr("eyas.training.loop.save_and_reopen", first_ask)
    return found


def logits(model):
    with torch.no_grad():
        scores = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.float()
    return scores[:, -IDS.shape[1] :]  # without those of virtual tokens


def assert_saved_opened_resumed_and_merged(family, name, base, run_of, trained_logits, *more):
    settings = WORKS[family][name]
    run, recipe = run_of(family, settings, base, *more)
    trained = trained_logits[0]

    opened = load_tuned(recipe, "AutoModelForCausalLM", None, torch.float32, run.adapter)
    assert float((logits(opened) - trained).abs().max() / trained.abs().max()) <= OPENED[family]
    bare = load_base(recipe, "AutoModelForCausalLM", None, torch.float32)
    assert float((logits(bare) - trained).abs().max() / trained.abs().max()) > 1e-2  # the adapter does something
    whole = RunDirectory(shutil.copytree(run.path, run.path.with_name("whole")))
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(4))
    run.record(status="running")
    run_of(family, settings, base, *more, resume=True)
    assert first_difference(run, whole) is None
    assert (run.adapter / "adapter_config.json").read_bytes() == (whole.adapter / "adapter_config.json").read_bytes()
    if not METHODS[recipe.adapter.method].merges:
        with pytest.raises(ExportError, match="cannot be merged; keep base and adapter together"):
            merged(run, recipe)
        return
    proof = merged(run, recipe)
    for parity in (proof.in_float32, proof.rounded):
        assert parity.kl_per_token <= 1e-6 and parity.top1_agreement == 1.0


class ReadsHere:
    """Reader that opens the merged model in this process, without new imports."""

    def compare(self, *given):
        return compare_saved(*given)


def merged(run, recipe):
    from eyas.cli.open_run import open_run

    with open_run(run.path) as opened:
        probes = [
            tensors(sequence)
            for _, example in held_out(recipe, opened.splits)[:4]
            for sequence in opened.splits.spec.sequences(example)
        ]
        return merge(FinishedRun(run, recipe, opened.task.auto_model, None, opened.tokenizer), probes, ReadsHere())


@pytest.mark.slow
@pytest.mark.parametrize("cell", sorted(QUICK), ids="-".join)
def test_an_adapter_is_saved_opened_resumed_and_merged(cell, run_of, trained_logits):
    assert_saved_opened_resumed_and_merged(*cell, run_of, trained_logits)


@pytest.mark.sweep
@pytest.mark.parametrize("cell", sorted(set(CELLS) - QUICK), ids="-".join)
def test_an_adapter_is_saved_opened_resumed_and_merged_in_every_cell(cell, run_of, trained_logits):
    assert_saved_opened_resumed_and_merged(*cell, run_of, trained_logits)


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
@pytest.mark.parametrize("base", BASES)
def test_an_adapter_of_a_compiled_model_is_saved_and_opened(base, run_of, trained_logits):
    compiled = "training.torch_compile=true"

    assert_saved_opened_resumed_and_merged("llama", "rsLoRA", base, run_of, trained_logits, compiled)


def refusal_of(run_of, family, settings, base, tmp_path, monkeypatch):
    """Return the message of a start that is refused before its first step."""
    monkeypatch.setattr("eyas.training.run.fit", lambda *_: pytest.fail("a step was trained"))
    with pytest.raises((PreflightError, RecipeError)) as refused:
        run_of(family, settings, base)
    refuse_foreign_folder(RunDirectory(tmp_path / "run"), resume=False)
    assert not (tmp_path / "run" / ".rehearsal").exists()
    return str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("cell", sorted(REFUSED), ids="-".join)
def test_settings_that_a_base_does_not_support_are_refused_before_the_first_step(cell, run_of, tmp_path, monkeypatch):
    family, name, base = cell

    assert REFUSED[cell] in refusal_of(run_of, family, WORKS[family][name], base, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", NOWHERE)
def test_settings_that_no_base_supports_are_refused_before_weights_are_loaded(name, run_of, tmp_path, monkeypatch):
    monkeypatch.setattr("eyas.training.run.load_model", lambda *_: pytest.fail("weights were loaded"))
    settings, message = NOWHERE[name]

    assert message.replace("\\", "") in refusal_of(run_of, "llama", settings, "float32", tmp_path, monkeypatch)


@pytest.mark.parametrize("word", NEVER)
def test_settings_that_eyas_cannot_train_are_refused_at_their_key(word):
    key = word.partition("=")[0]

    with pytest.raises(RecipeError, match=rf"adapter\.{key}: .*{NEVER[word]}"):
        load_recipe(ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", [f"adapter.{word}", "quantization=null"])
