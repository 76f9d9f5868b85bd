"""Right but unusual values and combinations are accepted by everything that comes before rows are read."""

from pathlib import Path

import pytest

import stand_ins
from field_recipes import FieldRecipe

BEST = "training.load_best_model_at_end=true; training.eval_steps=2; training.save_steps=4"

TRAINING = [
    "lr_scheduler_type=linear; training.lr_scheduler_kwargs={}",
    "lr_scheduler_type=cosine; training.lr_scheduler_kwargs={num_cycles: 1.5}",
    "lr_scheduler_type=cosine_with_restarts; training.lr_scheduler_kwargs={num_cycles: 3}",
    "lr_scheduler_type=polynomial; training.lr_scheduler_kwargs={lr_end: 0.0, power: 0.5}",
    "lr_scheduler_type=polynomial; training.lr_scheduler_kwargs={power: 3}",
    "lr_scheduler_type=constant",
    "lr_scheduler_type=constant_with_warmup; training.warmup_steps=5",
    "lr_scheduler_type=inverse_sqrt",
    "lr_scheduler_type=inverse_sqrt; training.lr_scheduler_kwargs={timescale: 100}",
    "lr_scheduler_type=cosine_with_min_lr; training.lr_scheduler_kwargs={min_lr_rate: 0.1}",
    "lr_scheduler_type=cosine_with_min_lr; training.lr_scheduler_kwargs={min_lr: 1e-6, num_cycles: 0.5}",
    "lr_scheduler_type=cosine_warmup_with_min_lr; training.lr_scheduler_kwargs={min_lr_rate: 0.1, warmup_lr_rate: 0.2}",
    "lr_scheduler_type=warmup_stable_decay; training.lr_scheduler_kwargs={num_decay_steps: 10}",
    "lr_scheduler_type=warmup_stable_decay; training.lr_scheduler_kwargs={num_decay_steps: 10, decay_type: 1-sqrt}",
    "lr_scheduler_type=warmup_stable_decay; training.max_steps=50; training.warmup_steps=0.1; "
    "training.lr_scheduler_kwargs={num_decay_steps: 10, warmup_type: cosine, min_lr_ratio: 0.1}",
    "lr_scheduler_type=reduce_lr_on_plateau; training.eval_steps=2",
    "lr_scheduler_type=reduce_lr_on_plateau; training.eval_steps=2; "
    "training.lr_scheduler_kwargs={factor: 0.5, patience: 2, mode: min}",
    "lr_scheduler_type=reduce_lr_on_plateau; training.eval_steps=2; training.metric_for_best_model=eval_loss; "
    "training.greater_is_better=false",
    "lr_scheduler_type=greedy; training.eval_steps=2; training.lr_scheduler_kwargs={min_lr: 1e-6, smooth: true}",
    "warmup_steps=0.03",
    "warmup_steps=0.5; training.max_steps=10",
    "warmup_steps=2000",
    "warmup_steps=9; training.max_steps=10",
    "weight_decay=0.5",
    "learning_rate=1",
    "num_train_epochs=0.01",
    "seed=4294967295",
    "data_seed=18446744073709551615",
    "adam_beta1=0.0",
    "adam_beta2=0.0",
    "adam_epsilon=1e-4",
    "max_grad_norm=0",
    "max_grad_norm=1e9",
    "label_smoothing_factor=1",
    "label_smoothing_factor=0.1; training.loss_type=nll",
    "loss_type=dft",
    "neftune_noise_alpha=5",
    "optim=sgd; training.optim_args='momentum=0.9, nesterov=true'",
    "optim=sgd; training.optim_args='dampening=0.1,momentum=0.5'",
    "optim=adagrad; training.optim_args='lr_decay=0.1,eps=1e-10'",
    "optim=rmsprop; training.optim_args='alpha=0.9,momentum=0.1,centered=true'",
    "optim=ademamix; training.optim_args='beta3=0.999,alpha=4.0,t_alpha=100,t_beta3=100'",
    "optim=lion_32bit; training.adam_beta1=0.95",
    "optim=adafactor; training.weight_decay=0.1",
    "torch_empty_cache_steps=1",
    "logging_strategy=no",
    "logging_strategy=epoch; training.save_strategy=epoch",
    "logging_first_step=true",
    "save_strategy=epoch",
    "save_strategy=no",
    "save_strategy=best; training.eval_steps=2; training.metric_for_best_model=loss",
    "load_best_model_at_end=true; training.eval_steps=2; training.save_steps=4; training.metric_for_best_model=loss",
    "load_best_model_at_end=true; training.eval_steps=3; training.save_strategy=best; "
    "training.metric_for_best_model=eval_loss",
    "eval_steps=2; training.eval_on_start=true; training.eval_delay=1.5",
    "eval_steps=2; training.eval_accumulation_steps=1; training.prediction_loss_only=true",
    "dataloader_num_workers=1; training.dataloader_prefetch_factor=4; training.dataloader_persistent_workers=true",
    "dataloader_num_workers=2; training.dataloader_multiprocessing_context=fork",
    "dataloader_num_workers=2; training.dataloader_in_order=false",
    "dataloader_drop_last=true",
    "train_sampling_strategy=sequential",
    "train_sampling_strategy=group_by_length",
    "log_level=passive",
    "log_level=debug; training.log_level_replica=critical",
    "debug=underflow_overflow",
    "ddp_find_unused_parameters=false; training.ddp_bucket_cap_mb=25; training.ddp_timeout=60",
    "ddp_backend=gloo",
    "pad_to_multiple_of=8",
    "pad_to_multiple_of=auto",
    "label_names=[labels]",
    "bf16=true",
    "bf16=false; training.fp16=false",
    "tf32=false",
    "torch_compile_mode=reduce-overhead",
    "torch_compile=true; training.torch_compile_backend=eager",
    "activation_checkpointing=true; training.activation_checkpointing_kwargs={use_reentrant: true}",
    "activation_checkpointing=true; training.activation_checkpointing_kwargs={every_n_layers: 2, offload: true}",
    "activation_checkpointing_kwargs={preserve_rng_state: false, early_stop: false}",
    "accelerator_config={even_batches: false, non_blocking: true}",
    "accelerator_config={gradient_accumulation_kwargs: {sync_each_batch: true}}",
    "use_cache=false; training.skip_memory_metrics=false",
    "average_tokens_across_devices=false",
    "router_aux_loss_coef=null",
]
ADAPTER = [
    "target_modules=[q_proj, self_attn.v_proj]",
    "target_modules='.*layers\\.0\\..*_proj'",
    "target_modules=all-linear; adapter.exclude_modules=[q_proj, lm_head]",
    "target_modules=all-linear; adapter.exclude_modules='.*mlp.*'",
    "target_modules=[q_proj]; adapter.layers_to_transform=1",
    "target_modules=[q_proj]; adapter.layers_to_transform=[0]; adapter.layers_pattern=layers",
    "target_modules=[q_proj]; adapter.layers_to_transform=[0, 1]; adapter.layers_pattern=[layers]",
    "target_modules=[]; adapter.target_parameters=[q_proj.weight]",
    "rank_pattern={q_proj: 4, 'layers.1.mlp.*': 2}",
    "rank_pattern={'^model.layers.0.self_attn.q_proj': 3}; adapter.alpha_pattern={q_proj: 1}",
    "use_rslora=true; adapter.lora_alpha=1",
    "use_dora=true; adapter.lora_dropout=0.5",
    "init_lora_weights=pissa_niter_4",
    "init_lora_weights=pissa_niter_16; adapter.r=4",
    "init_lora_weights=pissa",
    "init_lora_weights=olora",
    "init_lora_weights=gaussian",
    "init_lora_weights=mica",
    "init_lora_weights=orthogonal; adapter.r=2",
    "init_lora_weights=false",
    "modules_to_save=[embed_tokens]",
    "modules_to_save=[lm_head, norm]",
    "modules_to_save=[embed_tokens]; adapter.ensure_weight_tying=true",
    "trainable_token_indices=[0, 399]",
    "trainable_token_indices={embed_tokens: [5]}",
    "velora_config={num_groups: 4, init_type: random}",
    "use_bdlora={target_modules_bd_a: [o_proj], nblocks: 2, match_strict: false}",
    "r=1",
    "r=512",
    "target_modules=[embed_tokens]",
]
WHOLE = [
    "model.attn_implementation=eager",
    "model.attn_implementation=sdpa",
    "model.attn_implementation=flex_attention",
    "quantization={load_in_4bit: true, bnb_4bit_quant_type: fp4, bnb_4bit_quant_storage: bfloat16}",
    "quantization={load_in_4bit: true, bnb_4bit_compute_dtype: float32, llm_int8_skip_modules: [q_proj]}",
    "quantization={load_in_8bit: true, llm_int8_threshold: 0.0}",
    "quantization={load_in_8bit: true, llm_int8_has_fp16_weight: false}",
    "adapter={method: ia3, target_modules: [k_proj, down_proj], feedforward_modules: [down_proj]}",
    "adapter={method: ia3, target_modules: [k_proj], feedforward_modules: []}",
    "adapter={method: vera, r: 4, d_initial: 1.0, projection_prng_key: 7}",
    "adapter={method: prompt_tuning, num_virtual_tokens: 1, prompt_tuning_init: RANDOM}",
]
CASES = [
    *(("sft", f"training.{settings}") for settings in TRAINING),
    *(("sft", f"adapter.{settings}") for settings in ADAPTER),
    *(("sft", settings) for settings in WHOLE),
    ("classes", f"{BEST}; training.metric_for_best_model=f1; training.greater_is_better=true"),
    ("classes", f"{BEST}; training.metric_for_best_model=eval_accuracy"),
    ("classes", "data.labels=[a, b, c]; adapter.bias=all; adapter.target_modules=[query]"),
    ("full", "training.weight_decay=0.1; training.optim=adamw_torch"),
    ("full", "model.dtype=bfloat16; training.bf16=true"),
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    llama = stand_ins.llama(folder / "llama")
    return {"sft": llama, "full": llama, "classes": stand_ins.bert(folder / "bert")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.text_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


def test_there_are_a_hundred_of_them():
    assert len({settings for _, settings in CASES}) >= 100


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=str)
def test_an_unusual_value_is_accepted(kind, settings, bases, rows, tmp_path):
    FieldRecipe(tmp_path, bases[kind], rows, kind, settings).check()
