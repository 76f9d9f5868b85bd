"""Patched methods and private state of the libraries' trainers.

An upgrade touches this file. Each entry names the library and version, the reason, and the test that fails once the
entry can go. The tests are in `tests/training/test_library_patches.py` unless another file is named. One patch is
elsewhere: `data/sampler.py` sets `Trainer._get_train_sampler` while the trainer is built, in a package that may not
import this one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from eyas.data.sampler import innermost_sampler
from eyas.model.saved import gathered, write_adapter
from eyas.model.tokenizer import save_tokenizer

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, Trainer


# Checkpoints


def before_each_checkpoint(trainer: "Trainer", check: Callable[[], None]) -> None:
    """Call a check before each `Trainer._save_checkpoint`.

    An error of the check ends the save before a byte is written. transformers 5.24 has no event before a save, only
    `on_save` after it.
    Can go once this test fails: test_no_event_comes_before_a_checkpoint.
    """
    save_checkpoint = trainer._save_checkpoint

    def checked(model: Any, trial: Any) -> None:
        check()
        save_checkpoint(model, trial)

    trainer._save_checkpoint = checked


def save_checkpoint_now(trainer: "Trainer") -> None:
    """Save a checkpoint outside the loop's own schedule, with `on_save` after it. Every rank must call it.

    transformers 5.24 saves only where `control.should_save` is set at the end of a step; `_save_checkpoint` is private.
    Can go once this test fails: test_no_public_method_saves_a_checkpoint.
    """
    trainer._save_checkpoint(trainer.model, None)
    trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


def save_only_what_trains(trainer: "Trainer") -> None:
    """Save adapter (or whole model) and tokenizer in checkpoints, and no pickle.

    transformers 5.24 writes `training_args.bin`, a pickle that can hold a hub token, in `Trainer._save`.
    Can go once this test fails: test_the_library_pickles_its_arguments_into_a_checkpoint.

    For an adapter, `Trainer.save_model` copies the frozen base too: under DeepSpeed ZeRO-0 to -2 to the host memory of
    every rank, under FSDP with full state dicts to rank 0. Only under ZeRO-3 it leaves the base out.
    Can go once this test fails: test_the_library_copies_the_frozen_base_for_an_adapter.
    """

    def save_adapter(output_dir: str | None = None, _internal_call: bool = False) -> None:
        model, folder = plain_model(trainer), Path(output_dir or trainer.args.output_dir)
        adapter = gathered(model)  # on every rank
        if trainer.args.should_save:
            write_adapter(model, adapter, folder)
            save_tokenizer(trainer.processing_class, folder)

    def save_whole_model(output_dir: str, state_dict: dict[str, Any] | None = None) -> None:
        if trainer.args.should_save:
            plain_model(trainer).save_pretrained(output_dir, state_dict=state_dict)
            save_tokenizer(trainer.processing_class, Path(output_dir))

    if hasattr(plain_model(trainer), "peft_config"):
        trainer.save_model = save_adapter
    else:
        trainer._save = save_whole_model


def plain_model(trainer: "Trainer") -> "PreTrainedModel | PeftModel":
    """Return the trainer's model without the wrappers of DDP, DeepSpeed and `torch.compile`."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)


# Running sums


def loss_sum(trainer: "Trainer") -> "torch.Tensor":
    """Return `Trainer._tr_loss`: this rank's summed loss since the last log.

    transformers 5.24 hands no callback the loss of a step; `on_log` comes only every `logging_steps`.
    Can go once this test fails: test_no_event_after_a_step_has_its_loss_or_gradient_norm.
    """
    return trainer._tr_loss


def logged_since_previous_step(trainer: "Trainer") -> bool:
    """Return whether the previous step was logged, so that `loss_sum` restarted at 0."""
    return bool(trainer._globalstep_last_logged >= trainer.state.global_step - 1)


def running_sums(trainer: "Trainer") -> dict[str, Any]:
    """Return this rank's running sums as plain numbers.

    JSON keeps them to the last bit. After a resume, transformers 5.24 starts the logged loss and its mean over the run
    at zero again; TRL 1.16 does so with its token count and the metrics that it averages.
    Can go once this test fails: test_a_resume_starts_the_running_loss_at_zero.
    """
    return {
        "loss_since_logged": trainer._tr_loss.item(),
        "loss_logged": trainer._total_loss_scalar,
        "step_logged": trainer._globalstep_last_logged,
        "first_step": trainer._initial_global_step,
        "metrics": getattr(trainer, "_metrics", {}).get("train", {}),
        "tokens": getattr(trainer, "_total_train_tokens", None),
    }


def restore_running_sums(trainer: "Trainer", sums: Mapping[str, Any]) -> None:
    """Set the sums that `running_sums` returned. Call it in `on_train_begin`, after the loop has zeroed them."""
    trainer._tr_loss += sums["loss_since_logged"]
    trainer._total_loss_scalar = sums["loss_logged"]
    trainer._globalstep_last_logged = sums["step_logged"]
    trainer._initial_global_step = sums["first_step"]
    if sums["tokens"] is not None:
        trainer._metrics["train"].update(sums["metrics"])
        trainer._total_train_tokens = sums["tokens"]


# Steps


def on_gradient_norm(trainer: "Trainer", record: Callable[[Any], None]) -> None:
    """Hand the gradient norm of each step to `record`.

    It is a tensor, or DeepSpeed's number or None. transformers 5.24 keeps the norm in a local variable of its loop;
    only `on_log` gets it, and not after each step.
    Can go once this test fails: test_no_event_after_a_step_has_its_loss_or_gradient_norm.
    """
    get_grad_norm = trainer._get_grad_norm

    @wraps(get_grad_norm)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        norm = get_grad_norm(*args, **kwargs)
        record(norm)
        return norm

    trainer._get_grad_norm = recorded


def train_no_further(trainer: "Trainer") -> None:
    """End a resumed run whose last step was already trained.

    Call it in `on_train_begin`. transformers 5.24 trains one more step before it checks `should_training_stop`.
    Can go once this test fails: test_a_run_resumed_after_its_last_step_trains_one_more.
    """
    trainer.control.should_training_stop = True
    trainer.get_batch_samples = lambda *_: ([], None)
    trainer.model.train()  # TRL 1.16 files its metrics by the model's mode, which only a step would set


class RowOrder:
    """Guard that sets the sampler's epoch, also after a resume within one.

    accelerate 1.15 passes the epoch through the wrappers that it knows, and not through the one that skips batches
    around the one that shards them: several ranks that resumed in the second epoch took the rows in the first's order.
    Can go once this test fails: test_accelerate_sets_no_epoch_behind_skipped_and_sharded_batches.
    """

    def on_epoch_begin(self, trainer: "Trainer") -> None:
        """Set the epoch of the innermost sampler; a sequential sampler has none."""
        sampler = innermost_sampler(trainer.callback_handler.train_dataloader)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int(trainer.state.epoch or 0))


# Evaluation


def evaluate_within(trainer: "Trainer", context: Callable[[], AbstractContextManager[None]]) -> None:
    """Run each `Trainer.evaluate` inside a context.

    transformers 5.24 has an event after an evaluation (`on_evaluate`) and none before it.
    Can go once this test fails: test_no_event_comes_before_an_evaluation.
    """
    evaluate = trainer.evaluate

    def evaluate_in_context(*args: Any, **kwargs: Any) -> Any:
        with context():
            return evaluate(*args, **kwargs)

    trainer.evaluate = evaluate_in_context


def evaluate_now(trainer: "Trainer") -> None:
    """Run the evaluation that a stopped run still owes, outside the loop.

    transformers 5.24 does both in the private `_evaluate` and `_determine_best_metric`, after a step only.
    Can go once this test fails: test_no_public_method_updates_the_best_metric.
    """
    trainer._determine_best_metric(metrics=trainer._evaluate(None, None), trial=None)


# Model construction


@contextmanager
def without_zero3_init() -> Iterator[None]:
    """Build models in this context without ZeRO-3 sharding.

    transformers 5.24 shards any new model while a private global holds a ZeRO-3 configuration.
    Can go once this test fails: test_zero_3_is_switched_on_by_a_private_global.
    """
    from transformers.integrations import deepspeed

    with patch.object(deepspeed, "_hf_deepspeed_config_weak_ref", None):
        yield
