"""kill -9 at random moments: the resumed run equals an undisturbed one, bit for bit."""

import random
import time
from itertools import product

import pytest

from conftest import ROOT
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, faults
from trials import assert_the_same

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
METHODS = {
    "qlora": [],
    "lora": ["quantization=null"],
    "full": ["quantization=null", "adapter=null", "training.learning_rate=1e-3"],
}
STEPS, SAVE_STEPS = 20, 2
WORDS = [
    f"training.max_steps={STEPS}", f"training.save_steps={SAVE_STEPS}", "training.num_train_epochs=99",
    "training.global_batch_size=4", "training.logging_steps=3", "training.per_device_train_batch_size=2",
    "training.warmup_steps=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(fork_server, overrides_for, tmp_path_factory):
    """Return an undisturbed run per method and number of ranks, made on demand."""
    made = {}

    def run(method, ranks):
        if (method, ranks) not in made:
            folder = tmp_path_factory.mktemp(f"{method}{ranks}") / "run"
            dropout = [] if method == "full" else ["adapter.lora_dropout=0.1"]
            words = [RECIPE, *overrides_for(RECIPE), *METHODS[method], *dropout, *WORDS]
            began = time.monotonic()
            codes, text = fork_server.run([*words, f"run_directory={folder}"], folder.with_suffix(".log"), ranks=ranks)
            assert set(codes) == {0}, text[-3000:]
            made[method, ranks] = folder, words, time.monotonic() - began
        return made[method, ranks]

    return run


def kill_once(job, run, chance, seconds, inside_a_save):
    """Kill a run at a random moment. Return whether a save was in progress."""
    if inside_a_save:
        step = chance.randrange(SAVE_STEPS, STEPS, SAVE_STEPS)
        while job.running() and step not in run.checkpoint_steps():
            time.sleep(0.001)
        while job.running() and not saving(run):
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.03))
    else:
        time.sleep(chance.uniform(0.2, 1.0) * seconds)
    under_way = bool(saving(run))
    job.kill()
    job.wait()
    return under_way


def saving(run):
    """Return the unfinished checkpoints; without the seal they have their final names."""
    named = [run.checkpoint(step) for step in run.checkpoint_steps()]
    return [*run.staging.glob("checkpoint-*"), *(folder for folder in named if not (folder / SEAL).exists())]


def trial(seed, fork_server, undisturbed, tmp_path, script="launch/train.py"):
    """Kill a run, resume it and compare. Return whether it was killed inside a save, and its torn checkpoints."""
    chance = random.Random(seed)
    method, ranks = list(product(METHODS, (1, 2)))[seed % 6]
    whole, words, seconds = undisturbed(method, ranks)
    run = RunDirectory(tmp_path / f"run{seed}")
    words = [*words, f"run_directory={run.path}"]
    log = run.path.with_suffix(".log")

    job = fork_server.start(words, log, ranks=ranks, script=script)
    under_way = kill_once(job, run, chance, seconds, inside_a_save=seed % 3 > 0)

    torn = [fault for step in run.checkpoint_steps() for fault in faults(run.checkpoint(step))]
    resume = ["--resume"] if run.manifest.exists() else []
    codes, text = fork_server.run([*words, *resume], log, ranks=ranks, script=script)
    assert set(codes) == {0}, text[-3000:]
    assert_the_same(run.path, whole)
    return under_way, torn


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(10, 20))])
def test_a_killed_run_resumes_as_if_it_had_not_been_killed(seed, fork_server, undisturbed, tmp_path):
    assert trial(seed, fork_server, undisturbed, tmp_path)[1] == []


@pytest.mark.sweep
def test_two_hundred_kills_half_of_them_inside_a_save(fork_server, undisturbed, tmp_path):
    trials = [trial(seed, fork_server, undisturbed, tmp_path) for seed in range(1000, 1200)]

    inside = sum(under_way for under_way, _ in trials)
    print(f"killed inside a save: {inside} of 200")
    assert inside >= 100 and not any(torn for _, torn in trials)


@pytest.mark.sweep
def test_without_the_seal_the_same_kills_do_harm(fork_server, undisturbed, tmp_path):
    harmed = 0
    for seed in range(1000, 1030):
        try:  # that its checkpoints have no seal is no harm; that the resumed run is another, or ends, is
            trial(seed, fork_server, undisturbed, tmp_path, script="tests/faults/unsealed.py")
        except (AssertionError, ValueError):
            harmed += 1

    print(f"harmed without the seal: {harmed} of 30")
    assert 3 <= harmed <= 20  # a third of the kills is outside saves and does none
