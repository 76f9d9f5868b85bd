from types import SimpleNamespace

import pytest
import torch

from eyas.distributed.topology import Topology
from eyas.errors import CheckpointError, PreflightError
from eyas.model.parameters import ParameterCount
from eyas.run_directory import RunDirectory
from eyas.sealing import seal
from eyas.training.guards import disk_space
from eyas.training.guards.disk_space import DiskBudget, disk_budget_of, refuse_save_without_room, refuse_without_room
from eyas.training.library_patches import before_each_checkpoint

PARAMETERS = 1_000_000
COUNT = ParameterCount(trainable=PARAMETERS, total=PARAMETERS)
SMALL_CHANGE = 100 * disk_space.BYTES_A_TOKEN + disk_space.BYTES_A_TENSOR + disk_space.BYTES_A_RANK


def trainer_of(optim="adamw_torch", dtype=torch.float32, **arguments):
    model = torch.nn.Linear(1000, 1000, bias=False, dtype=dtype)
    given = {"optim": optim, "metric_for_best_model": None, "save_strategy": "steps", "save_steps": 10,
             "max_steps": 100, "num_train_epochs": 1, **arguments}  # fmt: skip
    return SimpleNamespace(model=model, args=SimpleNamespace(**given), processing_class=range(100))


def run_summary_of(strategy="single", rows=None):
    return SimpleNamespace(topology=Topology(1, strategy), parameters=COUNT, rows=rows, global_batch=10)


@pytest.mark.parametrize(
    ("optim", "dtype", "strategy", "bytes_a_parameter"),
    [
        ("adamw_torch", torch.float32, "single", 4 + 8),
        ("adamw_torch_fused", torch.bfloat16, "ddp", 2 + 4),
        ("paged_adamw_8bit", torch.bfloat16, "single", 2 + 2),
        ("lion_32bit", torch.float32, "single", 4 + 4),
        ("adafactor", torch.float32, "single", 4),
        ("sgd", torch.float32, "single", 4),
        ("some_new_one", torch.float32, "single", 4 + 8),
        ("adamw_torch", torch.bfloat16, "zero-2", 2 + 2 + 12),
        ("adamw_torch", torch.bfloat16, "zero-3", 2 + 12),
        ("adamw_torch", torch.bfloat16, "fsdp", 2 + 12),
    ],
)
def test_a_checkpoint_holds_the_weights_and_the_optimizer_s_state(optim, dtype, strategy, bytes_a_parameter):
    budget = disk_budget_of(trainer_of(optim, dtype), run_summary_of(strategy), keep=2)

    assert budget.checkpoint == bytes_a_parameter * PARAMETERS + SMALL_CHANGE
    assert budget.result == dtype.itemsize * PARAMETERS + 100 * disk_space.BYTES_A_TOKEN


@pytest.mark.parametrize(
    ("arguments", "rows", "kept"),
    [
        ({}, None, 3),
        ({"metric_for_best_model": "loss"}, None, 4),
        ({"max_steps": 10}, None, 1),
        ({"max_steps": 11}, None, 2),
        ({"max_steps": -1}, 100, 1),
        ({"max_steps": -1, "num_train_epochs": 3}, 100, 3),
        ({"save_strategy": "epoch"}, 100, 3),
    ],
)
def test_the_kept_checkpoints_and_one_more_are_on_disk_at_once(arguments, rows, kept):
    assert disk_budget_of(trainer_of(**arguments), run_summary_of(rows=rows), keep=2).kept == kept


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    return run


def free(monkeypatch, count):
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: count)


def test_a_disk_must_hold_two_checkpoints_the_next_and_the_result(run, monkeypatch, capsys, caplog):
    budget = DiskBudget(checkpoint=100 * 2**20, kept=6, result=2**20)

    free(monkeypatch, budget.least - 1)
    with pytest.raises(
        PreflightError, match=r"need 301\.0 MiB, and 301\.0 MiB are free; free some space, or choose a run_d"
    ):
        refuse_without_room(run, budget)
    free(monkeypatch, budget.least)
    refuse_without_room(run, budget)
    assert (
        "disk: up to 601.0 MiB needed (6 checkpoints × 100.0 MiB + 1.0 MiB for the result), 301.0 MiB free"
        in capsys.readouterr().out
    )
    assert "not all checkpoints will fit on the disk" in caplog.text
    caplog.clear()
    free(monkeypatch, budget.wanted)
    refuse_without_room(run, budget)
    assert not caplog.text


def test_the_checkpoints_of_a_resumed_run_count_as_free_space(run, monkeypatch):
    written(run, step=2, size=1000)
    free(monkeypatch, 2100)

    refuse_without_room(run, DiskBudget(checkpoint=1000, kept=3, result=100))
    with pytest.raises(PreflightError):
        refuse_without_room(run, DiskBudget(checkpoint=1001, kept=3, result=100))


def written(run, step, size):
    staged = run.staging / f"checkpoint-{step}"
    staged.mkdir(parents=True)
    (staged / "optimizer.pt").write_bytes(bytes(size))
    seal(staged, run.checkpoint(step), {"step": step})


def test_a_save_needs_as_much_space_as_the_newest_checkpoint(run, monkeypatch):
    saved = []
    trainer = SimpleNamespace(_save_checkpoint=lambda *given: saved.append(given))
    budget = DiskBudget(checkpoint=5000, kept=3, result=0)
    before_each_checkpoint(trainer, lambda: refuse_save_without_room(run, budget, step=4))

    free(monkeypatch, 4999)
    with pytest.raises(
        CheckpointError, match=r"step 4 was not saved: it needs about 4\.9 KiB.*no checkpoint before it"
    ):
        trainer._save_checkpoint("model", None)
    written(run, step=2, size=4000)
    trainer._save_checkpoint("model", None)
    free(monkeypatch, 3999)
    with pytest.raises(CheckpointError, match=rf"needs about 3\.9 KiB.*newest whole checkpoint is {run.checkpoint(2)}"):
        trainer._save_checkpoint("model", None)

    assert saved == [("model", None)]
