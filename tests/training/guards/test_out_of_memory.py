"""Memory that runs out is told with the batch, its longest row, the peak and what to change first."""

import re

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from eyas.errors import TrainingError
from eyas.training.guards.out_of_memory import ran_out
from stand_ins import row_numbers


def allocate_too_much():
    torch.empty(2**55)


@pytest.fixture
def run_out(monkeypatch):
    """Run out of memory in a micro-batch of a step, and keep the batches of that step."""

    def at(step, micro_batch=0):
        seen = []
        plain = transformers.Trainer.training_step

        def training_step(self, model, inputs, *more):
            if self.state.global_step + 1 == step:
                seen.append(inputs)
                if len(seen) > micro_batch:
                    allocate_too_much()
            return plain(self, model, inputs, *more)

        monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
        return seen

    return at


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_each_way_of_saying_that_memory_ran_out_is_known(error):
    assert ran_out(error)


def test_what_torch_says_on_this_machine_is_known():
    with pytest.raises(RuntimeError) as raised:
        allocate_too_much()

    assert ran_out(raised.value)


def test_another_error_keeps_its_traceback(trained, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "training_step", lambda *_: [][1])

    with pytest.raises(IndexError):
        trained("minilm_lora_sentiment")


def test_the_batch_the_longest_row_the_peak_and_three_changes_are_told(trained, run_out, models):
    seen, model = run_out(step=3), models["falcon7b"]

    with pytest.raises(TrainingError) as told:
        trained("falcon7b_lora", "training.packing=false", "training.activation_checkpointing=false",
                "training.max_steps=5", "training.global_batch_size=8")  # fmt: skip

    first, batch, peak, keeps, *changes = str(told.value).splitlines()
    assert first.startswith("step 3: out of memory: ") and "can't allocate memory" in first
    (rows, width), numbers = seen[0]["input_ids"].shape, row_numbers(seen[0], AutoTokenizer.from_pretrained(model))
    found = re.fullmatch(rf"The batch: {rows} rows × {width} tokens, \d+% of them padding; the longest is "
                         rf".*train\.jsonl:(\d+) with {width} tokens\.", batch)  # fmt: skip
    assert seen[0]["attention_mask"][numbers.index(int(found[1]) - 1)].all()
    assert re.fullmatch(r"Peak so far: \d+\.\d [GM]iB of \d+\.\d GiB\.", peak)
    assert "Cheapest ways to save memory at global_batch_size 8; append" in keeps
    assert [change.split("  (")[0].strip() for change in changes] == [
        "training.per_device_train_batch_size=2",
        "training.activation_checkpointing=true",
        "training.max_length=8",  # what evaluation.max_new_tokens asks for
    ]


def test_of_a_step_of_several_passes_the_largest_batch_is_told(trained, run_out):
    seen = run_out(step=2, micro_batch=3)

    with pytest.raises(TrainingError) as told:
        trained("falcon7b_lora", "training.packing=false", "training.per_device_train_batch_size=2",
                "training.global_batch_size=8")  # fmt: skip

    assert len(seen) == 4
    assert f"The batch: 2 rows × {max(each['input_ids'].shape[1] for each in seen)} tokens" in str(told.value)


def test_packed_rows_are_told_end_to_end(trained, run_out):
    seen = run_out(step=1)

    with pytest.raises(TrainingError, match="out of memory") as told:
        trained("falcon7b_lora", "training.max_length=28", "evaluation.max_new_tokens=8")

    assert f"The batch: 4 rows concatenated, {seen[0]['input_ids'].shape[1]} tokens; the longest is " in str(told.value)


def test_of_a_stream_the_examples_are_told(trained, run_out):
    run_out(step=2)

    with pytest.raises(TrainingError, match=r"The batch: examples 17 to 20 of the stream, examples 21 to 24 of the"):
        trained("falcon7b_lora", "training.packing=false", "data.streaming=true", "training.global_batch_size=16")


def test_memory_that_runs_out_in_an_evaluation_is_not_laid_on_a_batch_that_was_trained_on(trained, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "evaluate", lambda *_, **__: allocate_too_much())

    with pytest.raises(TrainingError) as told:
        trained("minilm_lora_sentiment", "training.eval_steps=1")

    assert str(told.value).startswith("after 1 step, during set-up, evaluation or a save: out of memory")
    assert "The batch" not in str(told.value) and "  training.per_device_eval_batch_size=4" in str(told.value)


def test_memory_that_runs_out_before_the_first_step_is_told_too(trained, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "create_optimizer", lambda *_: allocate_too_much())

    with pytest.raises(TrainingError, match=r"^after 0 steps, during set-up") as told:
        trained("minilm_lora_sentiment")
    assert "The batch" not in str(told.value)
