"""How it is trained: trl.SFTConfig or transformers.TrainingArguments, and the global batch."""

from typing import ClassVar

from pydantic import Field

from eyas.recipe.library_signatures import SFT_CONFIG, TRAINING_ARGUMENTS, LibraryClass
from eyas.recipe.section import LibrarySection

_ACCELERATE = "an accelerate config says how a run is spread (accelerate launch --config_file …)"
_NO_UPLOAD = "eyas uploads nothing"
_TRACKING = "set tracking.report_to"
_NOT_A_SETTING = "eyas decides it"


class Training(LibrarySection):
    """Steps, batch and optimizer, under the names of the library's trainer."""

    global_batch_size: int = Field(
        16,
        gt=0,
        description="Rows (packed sequences, when packing) per optimizer step over all ranks: micro-batch × "
        "accumulation × ranks.",
    )
    per_device_train_batch_size: int = Field(4, gt=0, description="Rows per forward pass of one rank.")
    per_device_eval_batch_size: int = Field(8, gt=0, description="Rows per evaluation pass of one rank.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    lr_scheduler_type: str = Field("linear", description="Shape of the learning rate over the run.")
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps from zero to the peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    num_train_epochs: float = Field(1.0, gt=0, description="Passes over the training rows.")
    max_steps: int = Field(-1, ge=-1, description="Stop after this many optimizer steps; -1 leaves it to the epochs.")
    max_length: int = Field(1024, gt=0, description="Tokens per row; what is longer is cut.")
    bf16: bool | None = Field(None, description="Autocast to bfloat16; follows `model.dtype` when left out.")
    fp16: bool | None = Field(None, description="Autocast to float16; follows `model.dtype` when left out.")
    activation_checkpointing: bool | None = Field(
        None,
        description="Recompute activations in the backward pass: less memory, and slower. Left out, it is done where a "
        "micro-batch would not fit otherwise.",
    )
    logging_steps: int = Field(10, gt=0, description="Optimizer steps between two lines of metrics.jsonl.")
    save_steps: int = Field(200, gt=0, description="Optimizer steps between two checkpoints.")
    save_total_limit: int = Field(
        2, ge=2, description="Whole checkpoints to keep, besides the best; at least two, for one may be damaged."
    )
    eval_steps: int | None = Field(
        None, gt=0, description="Optimizer steps between two evaluations; none while training when left out."
    )
    divergence_patience: int | None = Field(
        None,
        ge=20,
        description="Stop when the losses of this many steps lie clearly above those of when they were lowest; never "
        "when left out.",
    )
    seed: int = Field(42, ge=0, description="Seed of the adapter's initial weights, dropout, row order and subsets.")

    reserved: ClassVar[dict[str, str]] = {
        "gradient_accumulation_steps": "set global_batch_size; the launch decides the accumulation",
        "output_dir": "set run_directory",
        "run_name": "set run_directory",
        "report_to": _TRACKING,
        "project": _TRACKING,
        "resume_from_checkpoint": "use --resume",
        "eval_strategy": "set eval_steps",
        "max_seq_length": "set max_length",
        "model_init_kwargs": "set the fields of model and quantization",
        "trust_remote_code": "set model.trust_remote_code",
        "gradient_checkpointing": "transformers calls it activation_checkpointing now",
        "gradient_checkpointing_kwargs": "transformers calls it activation_checkpointing_kwargs now",
        "save_only_model": "a run could not be resumed from it",
        "ignore_data_skip": "a resumed run would train on the same rows again",
        "enable_jit_checkpoint": "eyas saves when it is told to leave",
        "restore_callback_states_from_checkpoint": "eyas restores them",
        "auto_find_batch_size": "it would change the batch that was asked for",
        **dict.fromkeys(
            ("deepspeed", "fsdp", "fsdp_config", "use_cpu", "parallelism_config", "local_rank"), _ACCELERATE,
        ),
        **dict.fromkeys(
            ("push_to_hub", "hub_token", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push",
             "hub_revision", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _NO_UPLOAD,
        ),
        **dict.fromkeys(
            ("do_train", "do_eval", "do_predict", "disable_tqdm", "remove_unused_columns", "dataset_kwargs",
             "logging_nan_inf_filter", "full_determinism", "shuffle_dataset", "dataset_num_proc", "eos_token",
             "pad_token", "truncation_mode", "packing_strategy", "eval_packing", "length_column_name"), _NOT_A_SETTING,
        ),
        **dict.fromkeys(("assistant_only_loss", "completion_only_loss"), "set data.answers_only"),
        "dataset_text_field": "set data.columns: {text: …}",
        "chat_template_path": "set model.chat_template",
    }  # fmt: skip

    @classmethod
    def library(cls, task: str) -> LibraryClass:
        return SFT_CONFIG if task == "sft" else TRAINING_ARGUMENTS
