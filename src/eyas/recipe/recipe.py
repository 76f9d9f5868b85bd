"""The recipe: one schema for the whole life of a run."""

import re
from collections.abc import Iterator
from typing import Literal

import yaml
from pydantic import Field

from eyas.recipe.adapter import Lora
from eyas.recipe.data import Data
from eyas.recipe.evaluation import Evaluation
from eyas.recipe.export import Export
from eyas.recipe.model import Model, Quantization
from eyas.recipe.section import Section
from eyas.recipe.tracking import Tracking
from eyas.recipe.training import Training
from eyas.recipe.watchdog import Watchdog
from eyas.recipe.yaml_reader import read_scalar


class _Dumper(yaml.SafeDumper):
    """Quotes each word that our reader would take for a number; PyYAML knows only those of YAML 1.1."""


def _represent_word(dumper: yaml.SafeDumper, word: str) -> yaml.Node:
    style = None if isinstance(read_scalar(word), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", word, style=style)


_Dumper.add_representer(str, _represent_word)


def _is_commit(revision: str | None) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


Contradiction = tuple[str, str]
"""A dotted path and why its value cannot stand."""


class Recipe(Section):
    """What is trained, on what, how, and how the result is judged."""

    task: Literal["sft", "sequence_classification"] = Field(description="What the model learns to do.")
    model: Model = Field(description="The base model.")
    quantization: Quantization | None = Field(None, description="Quantize the frozen base; full precision if left out.")
    adapter: Lora | None = Field(None, description="Train an adapter; the whole model when left out.")
    data: Data = Field(description="Training and held-out rows.")
    training: Training = Field(Training(), description="Steps, batch and optimizer.")
    evaluation: Evaluation = Field(Evaluation(), description="Scores before and after.")
    export: Export = Field(Export(), description="The merged model.")
    tracking: Tracking = Field(Tracking(), description="Where curves are shown.")
    watchdog: Watchdog = Field(Watchdog(), description="When a rank that stands still ends the job.")
    run_directory: str | None = Field(None, description="Folder of the run; runs/<name of the recipe> if left out.")

    @property
    def run_folder(self) -> str:
        """The run's folder; a loaded recipe always has one."""
        assert self.run_directory is not None
        return self.run_directory

    def to_yaml(self) -> str:
        """Return the recipe with every default written out; loading it gives an equal recipe."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what is well-formed but cannot be meant; each rule is named as the sentence it enforces."""
        rules = (
            self._quantized_weights_need_an_adapter, self._weights_have_one_quantization,
            self._a_quantization_quantizes, self._only_four_bit_settings_for_four_bit_weights,
            self._remote_code_is_pinned, self._micro_batches_fill_the_global_batch, self._precision_is_one,
            self._warmup_ends_before_the_run, self._a_run_is_longer_than_its_patience,
            self._evaluation_steps_need_held_out_rows, self._the_best_model_needs_a_metric,
            self._the_order_of_rows_is_found_again,
            self._logs_and_saves_end_an_epoch_together, self._rows_are_held_out_in_one_way,
            self._sources_are_weighted_together, self._a_stream_has_a_last_step, self._a_stream_is_read_in_order,
            self._json_fields_are_for_generated_answers, self._class_settings_are_for_classification,
            self._a_longest_answer_fits, self._offline_is_for_wandb,
        )  # fmt: skip
        for rule in rules:
            found = rule()
            if found is not None:
                yield found

    def _quantized_weights_need_an_adapter(self) -> Contradiction | None:
        if self.quantization is None or self.adapter is not None:
            return None
        return "quantization", "quantized weights cannot be trained; add an adapter section or remove this one"

    def _weights_have_one_quantization(self) -> Contradiction | None:
        if self.quantization is None or not (self.quantization.load_in_4bit and self.quantization.load_in_8bit):
            return None
        return "quantization.load_in_8bit", "weights are stored in 4 or in 8 bits, not both; remove one"

    def _a_quantization_quantizes(self) -> Contradiction | None:
        if self.quantization is None or self.quantization.load_in_4bit or self.quantization.load_in_8bit:
            return None
        return "quantization", "neither load_in_4bit nor load_in_8bit is true; set one or remove the section"

    def _only_four_bit_settings_for_four_bit_weights(self) -> Contradiction | None:
        if self.quantization is None or not self.quantization.load_in_8bit:
            return None
        stray = sorted(name for name in self.quantization.model_fields_set if name.startswith("bnb_4bit"))
        defaults = Quantization()
        changed = [name for name in stray if getattr(self.quantization, name) != getattr(defaults, name)]
        return (f"quantization.{changed[0]}", "has no effect on 8-bit weights; remove it") if changed else None

    def _remote_code_is_pinned(self) -> Contradiction | None:
        if not self.model.trust_remote_code or _is_commit(self.model.revision):
            return None
        return "model.trust_remote_code", "remote code runs only when model.revision is a full 40-digit commit hash"

    def _micro_batches_fill_the_global_batch(self) -> Contradiction | None:
        batch, micro = self.training.global_batch_size, self.training.per_device_train_batch_size
        if batch % micro == 0:
            return None
        return (
            "training.global_batch_size",
            f"{batch} is not a multiple of per_device_train_batch_size {micro}; the accumulation would not divide",
        )

    def _precision_is_one(self) -> Contradiction | None:
        if not (self.training.bf16 and self.training.fp16):
            return None
        return "training.fp16", "bf16 and fp16 are both true; choose one"

    def _warmup_ends_before_the_run(self) -> Contradiction | None:
        if self.training.max_steps < 0 or self.training.warmup_steps < self.training.max_steps:
            return None
        return "training.warmup_steps", f"the warm-up is as long as the run (max_steps {self.training.max_steps})"

    def _a_run_is_longer_than_its_patience(self) -> Contradiction | None:
        patience, steps = self.training.divergence_patience, self.training.max_steps
        if patience is None or steps < 0 or patience < steps:
            return None
        return "training.divergence_patience", f"the run has no more steps (max_steps {steps}), so it would never stop"

    def _evaluation_steps_need_held_out_rows(self) -> Contradiction | None:
        if self.training.eval_steps is None or self.data.evaluation is not None or self.data.holdout is not None:
            return None
        return "training.eval_steps", "there are no held-out rows; add data.evaluation or data.holdout"

    def _the_best_model_needs_a_metric(self) -> Contradiction | None:
        extra = self.training.library_arguments
        if not extra.get("load_best_model_at_end"):
            return None
        if "metric_for_best_model" not in extra:
            return "training.load_best_model_at_end", "name the metric: metric_for_best_model"
        if self.training.eval_steps is None:
            return "training.load_best_model_at_end", "the best model is found by evaluating; set eval_steps"
        return None

    def _the_order_of_rows_is_found_again(self) -> Contradiction | None:
        extra = self.training.library_arguments
        if extra.get("train_sampling_strategy") == "batch_rebalance":
            return "training.train_sampling_strategy", "batch_rebalance cannot be resumed exactly; use group_by_length"
        if (extra.get("accelerator_config") or {}).get("use_seedable_sampler") is False:
            return (
                "training.accelerator_config",
                "without use_seedable_sampler a resumed run takes other rows; remove it",
            )
        return None

    def _logs_and_saves_end_an_epoch_together(self) -> Contradiction | None:
        extra = self.training.library_arguments
        if extra.get("logging_strategy") != "epoch" or extra.get("save_strategy") == "epoch":
            return None
        return (
            "training.logging_strategy",
            "a run resumed at an epoch's end would lose its line; set save_strategy: epoch",
        )

    def _rows_are_held_out_in_one_way(self) -> Contradiction | None:
        if self.data.evaluation is None or self.data.holdout is None:
            return None
        return "data.holdout", "held-out rows come from data.evaluation already; remove one"

    def _sources_are_weighted_together(self) -> Contradiction | None:
        weighted = [source.weight is not None for source in self.data.training_sources]
        if any(weighted) and not all(weighted):
            return f"data.train.{weighted.index(False)}", "has no weight and others have; give each one, or none"
        if weighted == [True]:
            return "data.train", "a single source has nothing to be weighed against; remove its weight"
        if self.data.evaluation is not None and self.data.evaluation.weight is not None:
            return "data.evaluation.weight", "held-out rows are not mixed; remove it"
        if self.data.stopping_strategy != "first_exhausted" and not any(weighted):
            return "data.stopping_strategy", "has no effect on sources without weights; remove it"
        return None

    def _a_stream_has_a_last_step(self) -> Contradiction | None:
        if not self.data.streaming or self.training.max_steps > 0:
            return None
        return "data.streaming", "a stream has no length to count epochs by; set training.max_steps"

    def _a_stream_is_read_in_order(self) -> Contradiction | None:
        if not self.data.streaming:
            if self.data.shuffle_buffer:
                return "data.shuffle_buffer", "has no effect without data.streaming; remove it"
            return None
        if any(not source.is_local and not _is_commit(source.revision) for source in self.data.training_sources):
            return "data.streaming", "a hub dataset is streamed only when its revision is a full 40-digit commit hash"
        needs_all_rows = {
            "data.holdout": self.data.holdout is not None,
            "data.near_duplicates": self.data.near_duplicates is not None,
            "data.train.rows": any(source.rows is not None for source in self.data.training_sources),
            "data.stopping_strategy": self.data.stopping_strategy != "first_exhausted",
            "training.packing": bool(self.training.library_arguments.get("packing")),
            "training.train_sampling_strategy": "train_sampling_strategy" in self.training.library_arguments,
            "evaluation.json_fields": bool(self.evaluation.json_fields),
        }
        path = next((path for path, used in needs_all_rows.items() if used), None)
        return (path, "needs all rows at once, and data.streaming reads them one by one; remove one") if path else None

    def _json_fields_are_for_generated_answers(self) -> Contradiction | None:
        if not self.evaluation.json_fields or self.task == "sft":
            return None
        return "evaluation.json_fields", f"a {self.task} model writes no JSON; remove it"

    def _class_settings_are_for_classification(self) -> Contradiction | None:
        of_the_other = {
            "sft": {"labels", "pad_to_max_length", "longer_than_model"},
            "sequence_classification": {"answers_only", "end_of_turn", "chat_template_kwargs", "streaming"},
        }[self.task]
        given = self.data.model_fields_set & of_the_other
        changed = sorted(name for name in given if getattr(self.data, name) != Data.model_fields[name].default)
        return (f"data.{changed[0]}", f"has no effect on task {self.task}; remove it") if changed else None

    def _a_longest_answer_fits(self) -> Contradiction | None:
        if self.task != "sft" or self.evaluation.max_new_tokens <= self.training.max_length:
            return None
        return "evaluation.max_new_tokens", "an answer would be longer than any row trained on (training.max_length)"

    def _offline_is_for_wandb(self) -> Contradiction | None:
        if self.tracking.mode == "online" or self.tracking.report_to == "wandb":
            return None
        return "tracking.mode", "only wandb has an offline mode; set tracking.report_to: wandb or remove it"
