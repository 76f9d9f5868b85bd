import json

import numpy
import pytest
import torch
from safetensors.torch import save_file

from eyas.run_directory import RunDirectory
from eyas.selftest.compare_runs import Difference, curve, final, first_difference

LINES = [{"step": 1, "loss": 2.5, "tokens_per_second": 10.0}, {"step": 2, "loss": float("nan"), "peak_bytes": 1}]


@pytest.fixture
def run_of(tmp_path):
    """Write the files of a finished run."""

    def make(name, lines=LINES, folder="adapter", **tensors):
        run = RunDirectory(tmp_path / name)
        (run.path / folder).mkdir(parents=True)
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        save_file(tensors or {"lora_B": torch.arange(6.0).reshape(2, 3)}, run.path / folder / "model.safetensors")
        return run

    return make


def test_equal_runs_do_not_differ_whatever_their_times(run_of):
    faster = [{**LINES[0], "tokens_per_second": 99.0}, {**LINES[1], "peak_bytes": 2}]

    assert first_difference(run_of("one"), run_of("other", faster)) is None


@pytest.mark.parametrize(
    ("lines", "what", "step"),
    [
        ([{"step": 1, "loss": 2.5000000000000004}, LINES[1]], "step 1, loss: 2.5000000000000004 and 2.5", 1),
        ([LINES[0], {"step": 2, "loss": 1.0}], "step 2, loss: 1.0 and NaN", 2),
        ([LINES[0], {**LINES[1], "grad_norm": 1.0}], "step 2, grad_norm: 1.0 and null", 2),
        (LINES[:1], "1 lines of metrics.jsonl and 2", 2),
    ],
    ids=["last bit", "nan", "key", "length"],
)
def test_the_first_difference_of_two_curves_is_reported_with_its_step_and_both_values(run_of, lines, what, step):
    assert first_difference(run_of("one", lines), run_of("other")) == Difference(what, step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_a_different_tensor_is_reported_with_the_largest_difference(run_of, dtype):
    values = torch.tensor([[1, 2], [3, 4]], dtype=dtype)
    changed = values.clone()
    changed[1, 0] = 5

    found = first_difference(run_of("one", w=changed), run_of("other", w=values))

    assert found == Difference("w: differs by at most 2", None)


def test_zero_and_minus_zero_differ(run_of):
    found = first_difference(run_of("one", w=torch.tensor([0.0])), run_of("other", w=torch.tensor([-0.0])))

    assert found == Difference("w: differs by at most 0", None)


def test_tensors_with_different_names_shapes_or_types_differ(run_of):
    plain = run_of("plain", w=torch.zeros(4))

    named = first_difference(run_of("named", v=torch.zeros(4)), plain)
    shaped = first_difference(run_of("shaped", w=torch.zeros(2, 2)), plain)
    typed = first_difference(run_of("typed", w=torch.zeros(4, dtype=torch.float16)), plain)

    assert named.what == "1 tensors and 1, with different names"
    assert shaped.what == "w: F32 (2, 2) and F32 (4,)" and typed.what == "w: F16 (4,) and F32 (4,)"


def test_two_runs_without_tensors_are_not_equal(run_of):
    runs = [run_of("one"), run_of("other")]
    for run in runs:
        (run.adapter / "model.safetensors").unlink()

    assert first_difference(*runs).what == "0 tensors and 0, with different names"


def test_the_tensors_of_a_full_model_are_those_that_safetensors_reads(run_of):
    values = torch.randn(3, 5)
    run = run_of("full", folder="model", w=values, tied=torch.ones(2, dtype=torch.bfloat16))

    found = final(run)

    assert numpy.array_equal(numpy.frombuffer(found["w"].data, "<f4").reshape(found["w"].shape), values.numpy())
    assert found["tied"].dtype == "BF16" and len(found) == 2
    assert [line["step"] for line in curve(run)] == [1, 2]
