"""The training section: arguments of the library's trainer, and the global batch."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from eyas.recipe.library_signatures import LibraryClass
from eyas.recipe.section import LibrarySection
from eyas.recipe.task_traits import traits_of

_ACCELERATE = "set it in the accelerate config (accelerate launch --config_file …)"
_NO_UPLOAD = "eyas does not upload"
_TRACKING = "set tracking.report_to"
_NOT_A_SETTING = "eyas sets it"


class Training(LibrarySection):
    """Steps, batch size and optimizer, under the names of the library's trainer."""

    global_batch_size: int = Field(
        16,
        gt=0,
        description="Rows (packed sequences, when packing) per optimizer step: micro-batch × accumulation × ranks.",
    )
    per_device_train_batch_size: int = Field(4, gt=0, description="Rows per forward pass of one rank.")
    per_device_eval_batch_size: int = Field(8, gt=0, description="Rows per evaluation pass of one rank.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    lr_scheduler_type: str = Field("linear", description="Schedule of the learning rate.")
    warmup_steps: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = Field(
        0,
        description="Optimizer steps of warmup from zero to the peak learning rate; below 1, their share of the run.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    num_train_epochs: float = Field(
        1.0, gt=0, description="Passes over the training rows; has no effect with `max_steps`."
    )
    max_steps: int = Field(-1, ge=-1, description="Stop after this many optimizer steps; -1 means `num_train_epochs`.")
    max_length: int = Field(1024, gt=0, description="Tokens per row; longer rows are cut.")
    bf16: bool | None = Field(None, description="Autocast to bfloat16; left out, it follows `model.dtype`.")
    fp16: bool | None = Field(None, description="Autocast to float16; left out, it follows `model.dtype`.")
    activation_checkpointing: bool | None = Field(
        None,
        description="Recompute activations in the backward pass: slower, with less memory. Left out, it is on where a "
        "micro-batch would not fit in memory.",
    )
    logging_steps: int = Field(10, gt=0, description="Optimizer steps between two lines of metrics.jsonl.")
    save_steps: int = Field(200, gt=0, description="Optimizer steps between two checkpoints.")
    save_total_limit: int = Field(
        2, ge=2, description="Checkpoints to keep, besides the best one; at least two, because one may be damaged."
    )
    eval_steps: int | None = Field(
        None,
        gt=0,
        description="Optimizer steps between two evaluations; left out, a run is not evaluated during training.",
    )
    divergence_patience: int | None = Field(
        None,
        ge=20,
        description="Stop when the losses of this many steps are clearly above the lowest ones before them; left out, "
        "a run never stops for its loss.",
    )
    seed: int = Field(
        42,
        ge=0,
        lt=2**32,
        description="Seed for the adapter's initial weights, dropout, row order and subsets of rows.",
    )

    reserved: ClassVar[dict[str, str]] = {
        "gradient_accumulation_steps": "set global_batch_size; eyas computes the accumulation",
        "output_dir": "set run_directory",
        "run_name": "set run_directory",
        "report_to": _TRACKING,
        "project": _TRACKING,
        "resume_from_checkpoint": "use --resume",
        "eval_strategy": "set eval_steps",
        "trust_remote_code": "set model.trust_remote_code",
        "gradient_checkpointing": "transformers calls it activation_checkpointing now",
        "gradient_checkpointing_kwargs": "transformers calls it activation_checkpointing_kwargs now",
        "save_only_model": "a run could not resume from such a checkpoint",
        "ignore_data_skip": "a resumed run would repeat rows",
        "enable_jit_checkpoint": "eyas saves a checkpoint on a stop signal itself",
        "restore_callback_states_from_checkpoint": "eyas restores its callbacks itself",
        "auto_find_batch_size": "it would change the batch size of the recipe",
        **dict.fromkeys(
            ("batch_eval_metrics", "eval_do_concat_batches", "include_for_metrics"),
            "eyas computes its measures from all rows at once",
        ),
        **dict.fromkeys(
            ("bf16_full_eval", "fp16_full_eval"), "an evaluation during training computes in the precision of training"
        ),
        **dict.fromkeys(
            ("deepspeed", "fsdp", "fsdp_config", "use_cpu", "parallelism_config", "local_rank"), _ACCELERATE,
        ),
        **dict.fromkeys(
            ("push_to_hub", "hub_token", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push",
             "hub_revision", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _NO_UPLOAD,
        ),
        **dict.fromkeys(
            ("do_train", "do_eval", "do_predict", "disable_tqdm", "remove_unused_columns", "logging_nan_inf_filter",
             "full_determinism", "length_column_name"), _NOT_A_SETTING,
        ),
    }  # fmt: skip

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return traits_of(task).arguments

    @classmethod
    def reserved_for(cls, task: object) -> Mapping[str, str]:
        return {**cls.reserved, **traits_of(task).reserved}
