"""Out of memory is reported with the batch, the peak and the cheapest changes."""

import re

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from eyas.errors import TrainingError
from eyas.training.guards.out_of_memory import ran_out
from stand_ins import row_numbers

pytestmark = pytest.mark.slow


def allocate_too_much():
    torch.empty(2**55)


@pytest.fixture
def run_out(monkeypatch):
    """Run out of memory in a micro-batch; return the batches of its step."""

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
def test_each_out_of_memory_error_is_recognized(error):
    assert ran_out(error)


def test_torch_s_error_on_this_machine_is_recognized():
    with pytest.raises(RuntimeError) as raised:
        allocate_too_much()

    assert ran_out(raised.value)


def test_another_error_keeps_its_traceback(trained, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "training_step", lambda *_: [][1])

    with pytest.raises(IndexError):
        trained("minilm_lora_sentiment")


def test_the_message_has_the_batch_its_longest_row_the_peak_and_three_changes(trained, run_out, models):
    seen, model = run_out(step=3), models["falcon7b"]

    with pytest.raises(TrainingError) as raised:
        trained("falcon7b_lora", "training.packing=false", "training.activation_checkpointing=false",
                "training.max_steps=5", "training.global_batch_size=8")  # fmt: skip

    first, batch, peak, cheapest, *changes = str(raised.value).splitlines()
    assert first.startswith("step 3: out of memory: ") and "can't allocate memory" in first
    (rows, width), numbers = seen[0]["input_ids"].shape, row_numbers(seen[0], AutoTokenizer.from_pretrained(model))
    found = re.fullmatch(rf"The batch: {rows} rows × {width} tokens, \d+% of them padding; the longest is "
                         rf".*train\.jsonl:(\d+) with {width} tokens\.", batch)  # fmt: skip
    assert seen[0]["attention_mask"][numbers.index(int(found[1]) - 1)].all()
    assert re.fullmatch(r"Peak so far: \d+\.\d [GM]iB of \d+\.\d GiB\.", peak)
    assert "Cheapest ways to save memory at global_batch_size 8; append" in cheapest
    assert [change.split("  (")[0].strip() for change in changes] == [
        "training.per_device_train_batch_size=2",
        "training.activation_checkpointing=true",
        "training.max_length=8",  # what evaluation.max_new_tokens requires
    ]


def test_the_largest_of_a_step_s_micro_batches_is_reported(trained, run_out):
    seen = run_out(step=2, micro_batch=3)

    with pytest.raises(TrainingError) as raised:
        trained("falcon7b_lora", "training.packing=false", "training.per_device_train_batch_size=2",
                "training.global_batch_size=8")  # fmt: skip

    assert len(seen) == 4
    assert f"The batch: 2 rows × {max(each['input_ids'].shape[1] for each in seen)} tokens" in str(raised.value)


def test_packed_rows_are_reported_as_concatenated(trained, run_out):
    seen = run_out(step=1)

    with pytest.raises(TrainingError, match="out of memory") as raised:
        trained("falcon7b_lora", "training.max_length=28", "evaluation.max_new_tokens=8")

    assert f"The batch: 4 rows concatenated, {seen[0]['input_ids'].shape[1]} tokens; the longest is " in str(
        raised.value
    )


def test_examples_of_a_stream_are_reported_by_number(trained, run_out):
    run_out(step=2)

    with pytest.raises(TrainingError, match=r"The batch: examples 17 to 20 of the stream, examples 21 to 24 of the"):
        trained("falcon7b_lora", "training.packing=false", "data.streaming=true", "training.global_batch_size=16")


def test_out_of_memory_in_an_evaluation_names_no_training_batch(trained, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "evaluate", lambda *_, **__: allocate_too_much())

    with pytest.raises(TrainingError) as raised:
        trained("minilm_lora_sentiment", "training.eval_steps=1")

    assert str(raised.value).startswith("after 1 step, during set-up, evaluation or a save: out of memory")
    assert "The batch" not in str(raised.value) and "  training.per_device_eval_batch_size=4" in str(raised.value)


def test_out_of_memory_before_the_first_step_is_reported_too(trained, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "create_optimizer", lambda *_: allocate_too_much())

    with pytest.raises(TrainingError, match=r"^after 0 steps, during set-up") as raised:
        trained("minilm_lora_sentiment")
    assert "The batch" not in str(raised.value)
