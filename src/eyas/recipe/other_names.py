"""Names of settings in other tools and in earlier versions of the libraries, each with its name in a recipe.

The tools are axolotl, LLaMA-Factory, unsloth, torchtune, TRL's scripts, and transformers 4.
"""

_NAMES_BY_ADVICE: dict[str, str] = {
    "set model.name": "base_model model_name model_name_or_path pretrained_model_name_or_path model_id",
    "remove it; both come from model.name": "model_type tokenizer_type tokenizer_name tokenizer_config",
    "set model.chat_template to a .jinja file; left out, the tokenizer's own is used": (
        "template chat_template_jinja prompt_template"
    ),
    "set model.attn_implementation: flash_attention_2, sdpa or eager": (
        "flash_attention flash_attn use_flash_attention_2 use_flash_attn sdp_attention xformers_attention "
        "eager_attention"
    ),
    "set model.dtype": "torch_dtype precision pure_bf16 bfloat16 float16",
    "set quantization: {load_in_4bit: true} or {load_in_8bit: true}": "quantization_bit quantization_bits bits",
    "has no setting here; save a tokenizer with these tokens next to the model": "special_tokens",
    "set adapter.method": "finetuning_type peft_type adapter_type",
    "set adapter.r": "lora_r lora_rank rank",
    "set adapter.lora_alpha": "alpha lora_scale",
    "set adapter.target_modules": "lora_target lora_target_modules lora_modules lora_attn_modules",
    "set adapter.target_modules: all-linear": "lora_target_linear",
    "set adapter.modules_to_save": "lora_modules_to_save additional_target",
    "add an adapter section": "use_peft",
    "set adapter.use_dora": "peft_use_dora",
    "set adapter.use_rslora": "peft_use_rslora",
    "set data.train: {path: …}": "dataset datasets dataset_name train_file train_dataset data_path",
    "set data.evaluation: {path: …}": "test_datasets eval_dataset validation_file valid_file",
    "set data.holdout, a share of the training rows": (
        "val_set_size val_size validation_split test_size eval_split_ratio"
    ),
    "set data.train: {path: …, rows: …}": "max_samples",
    "set data.cache_directory": "dataset_prepared_path",
    "set data.answers_only": "train_on_inputs train_on_prompt mask_prompt",
    "set data.columns: {text: …}": "dataset_text_field",
    "remove it; eyas prepares rows once and keeps them in data.cache_directory": (
        "preprocessing_num_workers dataset_processes dataset_num_proc overwrite_cache"
    ),
    "set training.learning_rate": "lr learning_rate_init base_learning_rate",
    "set training.lr_scheduler_type": "lr_scheduler scheduler scheduler_type learning_rate_scheduler",
    "set training.optim": "optimizer optimizer_type optim_type",
    "set training.optim: adafactor": "adafactor",
    "set training.num_train_epochs": "num_epochs epochs n_epochs max_epochs",
    "set training.per_device_train_batch_size": (
        "micro_batch_size train_batch_size per_gpu_train_batch_size per_device_batch_size"
    ),
    "set training.per_device_eval_batch_size": "eval_batch_size per_gpu_eval_batch_size",
    "set training.global_batch_size, the rows of an optimizer step on all ranks": "batch_size",
    "set training.max_length": (
        "sequence_len cutoff_len max_seq_length max_seq_len seq_length model_max_length block_size context_length"
    ),
    "set training.packing": "sample_packing neat_packing packed",
    "remove it; held-out rows are not packed": "eval_sample_packing",
    "set data.pad_to_max_length (sequence_classification); other tasks pad each batch": "pad_to_sequence_len",
    "set training.warmup_steps: 0.03 instead; below 1 it is a share of the run's steps": "warmup_ratio",
    "set training.warmup_steps, a whole number of optimizer steps or a share below 1": (
        "num_warmup_steps warmup warmup_proportion"
    ),
    "set training.train_sampling_strategy: group_by_length": "group_by_length",
    "set training.eval_steps, a whole number of optimizer steps": (
        "evaluation_strategy evals_per_epoch eval_interval evaluate_every"
    ),
    "set training.save_steps, a whole number of optimizer steps": (
        "saves_per_epoch save_interval save_every checkpoint_every"
    ),
    "set training.logging_steps": "log_every_n_steps log_interval log_every",
    (
        "is not available; set training.eval_steps and load_best_model_at_end: true to keep the best step, or "
        "divergence_patience to stop a diverging run"
    ): ("early_stopping_patience early_stopping_threshold early_stopping"),
    "set training.max_grad_norm": "grad_clip gradient_clipping max_norm clip_grad_norm",
    "set training.adam_beta1 and adam_beta2": "beta1 adam_betas betas",
    "set training.adam_beta2": "beta2",
    "set training.neftune_noise_alpha": "noisy_embedding_alpha",
    "set training.use_liger_kernel": "use_liger enable_liger_kernel",
    "set training.torch_compile": "compile",
    "set training.activation_checkpointing": "use_gradient_checkpointing",
    "remove it; set model.dtype or training.fp16": "fp16_opt_level fp16_backend half_precision_backend",
    "set training.accelerator_config: {dispatch_batches: …}": "dispatch_batches split_batches",
    "has no setting here; eyas computes its measures itself": "include_inputs_for_metrics compute_metrics metrics",
    "has no setting here; eyas prints and plots the loss itself": "include_tokens_per_second plot_loss logging_dir",
    "set it in the accelerate config (accelerate launch --config_file …)": (
        "no_cuda use_mps_device use_ipex gpus num_gpus devices distributed_backend"
    ),
    "remove it; the library no longer has it": "save_safetensors jit_mode_eval past_index ray_scope torchdynamo",
    "set task": "stage rl training_type",
    "set run_directory; eyas does not overwrite a run": "output_directory overwrite_output_dir save_dir",
    "set tracking.report_to: wandb and tracking.project": "wandb_project wandb_name",
    "set tracking.report_to: wandb and tracking.mode": "wandb_mode use_wandb",
    "eyas does not upload": "push_to_hub_model_id push_to_hub_token hub_repo",
}

_TASKS_BY_ADVICE: dict[str, str] = {
    "preference tuning is not available yet": "dpo ipo orpo simpo cpo kto preference",
    "reinforcement learning is not available yet": "ppo grpo rloo rlhf",
    "reward models are not available yet": "rm reward reward_model",
    "use sft with data.format: text": "pt pretrain clm causal_lm completion text_generation",
    "use sequence_classification": "classification text_classification seq_cls",
    "use token_classification": "ner token_cls pos tagging",
    "sequence-to-sequence models are not available yet": "seq2seq summarization translation",
}

OTHER_NAMES = {name: advice for advice, names in _NAMES_BY_ADVICE.items() for name in names.split()}
"""The advice for a key that a recipe does not have."""

OTHER_TASKS = {name: advice for advice, names in _TASKS_BY_ADVICE.items() for name in names.split()}
"""The advice for a task that eyas does not have under that name."""
