"""Variables of another launcher, left in the shell, are recognized."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT
from eyas.distributed.topology import (
    RANK_VARIABLES,
    leave_no_rank_variables,
    refuse_incomplete_ranks,
    refuse_ranks_of_a_shell,
)
from eyas.errors import PreflightError

RECIPE = "recipes/smollm2_qlora_quickstart.yaml"


def run(words, variables):
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ | variables,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2", "RANK": "0"}, {"WORLD_SIZE": "4"}, {"RANK": "3"}, {"LOCAL_RANK": "1"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, {"PMI_SIZE": "8"},
    ],
    ids=" ".join,
)  # fmt: skip
def test_train_refuses_a_shell_that_takes_it_for_a_rank(variables):
    done = run(["-m", "eyas", "train", RECIPE], variables)

    found = [name for name in RANK_VARIABLES if name in variables]
    assert done.returncode == 1 and f"{found[0]}={variables[found[0]]}" in done.stderr
    assert f"unset {' '.join(found)}" in done.stderr


def test_a_command_that_is_always_one_process_ignores_them(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")

    leave_no_rank_variables()

    assert not [name for name in RANK_VARIABLES if name in os.environ]


@pytest.mark.parametrize(
    "variables",
    [{"PMI_SIZE": "1", "PMI_RANK": "0"}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, {"MPI_LOCALNRANKS": "1"}],
    ids=" ".join,
)
def test_the_only_task_of_a_cluster_s_step_trains(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    refuse_ranks_of_a_shell()

    assert not [name for name in RANK_VARIABLES if name in os.environ]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2, RANK=0: set here, but MASTER_ADDR and MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a"}, "unset them: unset WORLD_SIZE RANK"),
        ({"RANK": "1"}, r"RANK=1: a rank is a number from 0 to WORLD_SIZE - 1 = 0"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "RANK=2: a rank is a number from 0 to WORLD_SIZE - 1 = 1",
        ),
    ],
)
def test_a_rank_that_cannot_meet_the_others_is_refused(variables, named, monkeypatch):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(PreflightError) as refused:
        refuse_incomplete_ranks()

    assert named in str(refused.value)


def test_ranks_that_are_complete_and_a_plain_process_pass(monkeypatch):
    refuse_incomplete_ranks()
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)

    refuse_incomplete_ranks()
