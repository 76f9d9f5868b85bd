"""The libraries still need each patch; a test that fails names one that can go."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from peft import LoraConfig, get_peft_model
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import deepspeed

from eyas.data.sampler import innermost_sampler
from eyas.training.library_patches import save_only_what_trains, without_zero3_init
from prepared_rows import tokenizer

ROWS = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
LORA = LoraConfig(r=2, target_modules=["q_proj"])


@pytest.fixture
def tiny_trainer(tmp_path):
    """Return a plain Trainer of a one-layer model, with two steps and checkpoints."""

    def made(callback=None, **settings):
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                             num_attention_heads=2)  # fmt: skip
        arguments = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, max_steps=2, save_steps=1, logging_steps=100, use_cpu=True,
            report_to="none", disable_tqdm=True, **settings,
        )  # fmt: skip
        model = get_peft_model(LlamaForCausalLM(config), LORA)
        return Trainer(model, arguments, train_dataset=ROWS, callbacks=[callback] if callback else None)

    return made


def arguments_of(event):
    return {*inspect.signature(getattr(TrainerCallback, event)).parameters} - {"self", "kwargs"}


def source_order(method, *words):
    """Return whether a method's source has these words in this order."""
    places = [inspect.getsource(method).index(word) for word in words]
    return places == sorted(places)


def public(method):
    return [name for name in dir(Trainer) if not name.startswith("_") and f"{method}(" in _source(name)]


def _source(name):
    member = inspect.getattr_static(Trainer, name)
    return inspect.getsource(member) if inspect.isfunction(member) else ""


def test_no_event_comes_before_a_checkpoint():
    assert not {"on_pre_save", "on_save_begin", "on_before_save"} & {*dir(TrainerCallback)}
    assert source_order(Trainer._maybe_log_save_evaluate, "self._save_checkpoint(", "callback_handler.on_save(")


def test_no_public_method_saves_a_checkpoint():
    assert public("self._save_checkpoint") == []


def test_no_public_method_updates_the_best_metric():
    assert public("self._determine_best_metric") == []


def test_no_event_comes_before_an_evaluation():
    assert not {"on_pre_evaluate", "on_evaluate_begin", "on_prediction_begin"} & {*dir(TrainerCallback)}
    assert source_order(Trainer.evaluate, "self.evaluation_loop", "callback_handler.on_evaluate(")


def test_no_event_after_a_step_has_its_loss_or_gradient_norm(tiny_trainer):
    handed = []

    class StepEnd(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            handed.append(kwargs.keys())

    tiny_trainer(StepEnd()).train()

    assert len(handed) == 2 and not any("loss" in name or "norm" in name for keys in handed for name in keys)
    assert arguments_of("on_step_end") == {"args", "state", "control"}


def test_the_library_pickles_its_arguments_into_a_checkpoint(tiny_trainer, tmp_path):
    tiny_trainer().train()

    assert (tmp_path / "checkpoint-1" / "training_args.bin").exists()


def test_with_the_patch_a_checkpoint_holds_the_adapter_and_no_pickled_arguments(tiny_trainer, tmp_path):
    trainer = tiny_trainer()
    trainer.processing_class = tokenizer()
    save_only_what_trains(trainer)

    trainer.train()

    names = {file.name for file in (tmp_path / "checkpoint-1").iterdir()}
    assert "adapter_model.safetensors" in names and "training_args.bin" not in names


def test_the_library_copies_the_frozen_base_for_an_adapter():
    branches = inspect.getsource(Trainer.save_model).split("self.is_fsdp_enabled")[1]

    assert "state_dict = self.accelerator.get_state_dict(self.model)" in branches, "FSDP, full state dicts"
    assert "state_dict = self.accelerator.get_state_dict(self.deepspeed)" in branches, "ZeRO-0 to -2"
    assert "_zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=True)" in branches, "ZeRO-3 leaves it out"
    sharded = inspect.getsource(Accelerator.get_state_dict).split("self.is_fsdp2")[1]
    assert "ignore_frozen_params" not in sharded.partition("elif")[0]


def test_a_resume_starts_the_running_loss_at_zero(tiny_trainer, tmp_path):
    sums = []

    class TrainBegin(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            sums.append((state.global_step, trainer._tr_loss.item(), trainer._total_loss_scalar))

    tiny_trainer().train()
    trainer = tiny_trainer(TrainBegin())
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))

    assert sums == [(1, 0.0, 0.0)]


def test_a_run_resumed_after_its_last_step_trains_one_more(tiny_trainer, tmp_path, monkeypatch):
    tiny_trainer().train()
    steps = []
    plain = Trainer.training_step
    monkeypatch.setattr(Trainer, "training_step", lambda *given: steps.append(given) or plain(*given))

    class Stop(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            control.should_training_stop = True

    tiny_trainer(Stop(), num_train_epochs=9).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))

    assert len(steps) == 1


class Epochs(RandomSampler):
    """A sampler that records its epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_accelerate_sets_no_epoch_behind_skipped_and_sharded_batches():
    batches = BatchSampler(Epochs(range(8)), batch_size=2, drop_last=False)
    shared = prepare_data_loader(DataLoader(range(8), batch_sampler=batches), num_processes=2, process_index=0,
                                 put_on_device=False)  # fmt: skip
    assert isinstance(shared.batch_sampler, BatchSamplerShard)
    skipped = skip_first_batches(shared, 1)

    skipped.set_epoch(3)

    assert innermost_sampler(skipped).epoch == 0


def test_zero_3_is_switched_on_by_a_private_global(monkeypatch):
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", lambda: SimpleNamespace(is_zero3=lambda: True))

    assert deepspeed.is_deepspeed_zero3_enabled()
    with without_zero3_init():
        assert not deepspeed.is_deepspeed_zero3_enabled()
    assert deepspeed.is_deepspeed_zero3_enabled()
