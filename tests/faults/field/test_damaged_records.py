"""Files of a run that are damaged, foreign, unreadable or links: each is named in a refusal."""

import json
import os
import pickle
import shutil

import pytest
from typer.testing import CliRunner

import merges
from eyas.cli.main import app
from eyas.data.report import DataReport
from eyas.distributed.topology import started_topology
from eyas.errors import CheckpointError, EyasError, PreflightError
from eyas.export.proof import recorded_parity
from eyas.files import read_json
from eyas.run_directory import RunDirectory
from eyas.sealing import files_in, listed, write_seal
from eyas.training.finish import finish
from eyas.training.resume.trainer_state import restore_trainer_state
from eyas.verify import began_with, refuse_links

VALID = {
    "status": "finished", "eyas": "0.1.0", "versions": {"torch": "2.13"}, "labels": None, "steps": 2,
    "runs": {"topology": {"processes": 1, "strategy": "single"}}, "hub": [], "lineage": [],
    "digests": {"recipe": "sha256:aa", "base": "sha256:bb", "weights": "sha256:cc", "data": {"train": "1"}},
}  # fmt: skip

WHOLE_FILES = {
    "empty": b"",
    "truncated": json.dumps(VALID).encode()[:-40],
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "not text": b"\xff\xfe\x00",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "two objects": b"{}{}",
}


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.record(**VALID)
    run.open("task: sft\nmodel: {name: owner/name}\ndata: {train: {path: a.jsonl}}\n")
    return run


@pytest.mark.parametrize("damage", WHOLE_FILES)
def test_a_damaged_manifest_is_named_by_every_reader(damage, run):
    run.manifest.write_bytes(WHOLE_FILES[damage])

    for read in (run.read_manifest, run.hub_commits, lambda: began_with(run), lambda: run.record(status="running")):
        with pytest.raises(CheckpointError, match=f"{run.manifest}: is corrupt: .*; restore it from a copy"):
            read()
    for verb in (["evaluate"], ["report"], ["generate", "--prompt", "a"], ["finish"]):
        found = CliRunner().invoke(app, [verb[0], str(run.path), *verb[1:]])
        assert found.exit_code == 1 and f"{run.manifest}: is corrupt" in found.output, verb
    found = CliRunner().invoke(app, ["verify", str(run.path)])
    assert found.exit_code == 1 and f"{run.manifest}: is not what was written" in found.output


ENTRIES = {
    "status": 7,
    "versions": ["torch"],
    "runs": {"topology": "single"},
    "labels": "yes",
    "hub": [{"kind": "model"}],
    "digests": "sha256:aa",
    "lineage": {"at": 1},
    "records": {"metrics.jsonl": {"bytes": "many", "sha256": "aa"}},
    "steps": "two",
    "train_seconds": "NaN",
    "finished_from": "checkpoint-2",
    "eyas": None,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_another_type_is_named(name, run):
    merges.change_json(run.manifest, **{name: ENTRIES[name]})

    with pytest.raises(CheckpointError, match=rf"manifest.json: is corrupt: {name}[.:]"):
        run.read_manifest()


@pytest.mark.parametrize("name", ["eyas", "versions", "runs", "digests.base", "digests.data"])
def test_a_missing_entry_is_named(name, run):
    entries = json.loads(run.manifest.read_text())
    section, _, key = name.partition(".")
    if key:
        del entries[section][key]
    else:
        del entries[section]
    run.manifest.write_text(json.dumps(entries))

    with pytest.raises(CheckpointError, match=rf"manifest.json: lacks {name}; restore it"):
        began_with(run, "eyas", "versions", "runs")


LINES = {
    "not JSON": "{",
    "a list": "[1]",
    "deep": "[" * 100_000,
    "no step": '{"loss": 1.0}',
    "a step as text": '{"step": "1"}',
    "a loss as text": '{"step": 1, "loss": "high"}',
    "a loss as a list": '{"step": 1, "eval_loss": [1]}',
}


@pytest.mark.parametrize("what", LINES)
def test_a_damaged_line_of_metrics_is_named_by_its_number(what, run):
    run.metrics.write_text('{"step": 1, "loss": 1.0}\n' + LINES[what] + "\n" + '{"step": 3, "loss": NaN}\n')

    for read in (run.metric_lines, lambda: run.keep_metrics_until(3)):
        with pytest.raises(CheckpointError, match=r"metrics.jsonl:2: is corrupt; remove this line"):
            read()


def test_a_nan_in_metrics_is_a_number(run):
    run.metrics.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n')

    assert [line["step"] for line in run.metric_lines()] == [1, 2]


@pytest.mark.parametrize("damage", [*WHOLE_FILES, "foreign"])
def test_a_damaged_parity_or_data_report_is_named(damage, run):
    run.merged.mkdir()
    for file, read in ((run.parity, lambda: recorded_parity(run)), (run.data_report, lambda: DataReport.of_run(run))):
        file.write_bytes(WHOLE_FILES.get(damage, b'{"in float32": {"kl_per_token": "small"}, "train": {"rows": []}}'))
        with pytest.raises(CheckpointError, match=f"{file}: is not what was written: "):
            read()


@pytest.mark.parametrize("damage", [*WHOLE_FILES, "foreign", "no steps"])
def test_a_damaged_state_of_the_trainer_is_named(damage, run):
    foreign = {"foreign": b'{"max_steps": "2", "global_step": [], "num_input_tokens_seen": 0, "best_global_step": 0}'}
    checkpoint = run.checkpoint(2)
    checkpoint.mkdir(parents=True)
    file = checkpoint / "trainer_state.json"
    file.write_bytes((WHOLE_FILES | foreign | {"no steps": b"{}"})[damage])
    write_seal(checkpoint, listed(checkpoint, files_in(checkpoint)), {"kind": "checkpoint", "step": 2})
    run.record(status="failed")
    recipe = merges.Recipe.model_validate(
        {"task": "sft", "model": {"name": "a/b"}, "data": {"train": {"path": "a.jsonl"}}}
    )

    with pytest.raises(CheckpointError, match=f"{file}: is not the trainer's"):
        finish(run, recipe)


@pytest.mark.parametrize("damage", [*WHOLE_FILES, "no sums"])
def test_a_damaged_state_of_a_rank_is_named(damage, tmp_path):
    file = tmp_path / "loop_state_0.json"
    file.write_bytes(WHOLE_FILES.get(damage, b'{"ours": {}}'))

    with pytest.raises(CheckpointError, match=f"{file}: is not what was saved"):
        restore_trainer_state(None, tmp_path, {})


@pytest.mark.parametrize("damage", [*WHOLE_FILES, "a stage as text"])
def test_a_damaged_deepspeed_config_is_named(damage, tmp_path, monkeypatch):
    file = tmp_path / "zero.json"
    file.write_bytes(WHOLE_FILES.get(damage, b'{"zero_optimization": "two"}'))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))

    with pytest.raises(PreflightError, match=f"{file}: is not a DeepSpeed config: "):
        started_topology()


def test_a_record_that_is_no_file_is_not_waited_for(run):
    run.manifest.unlink()
    os.mkfifo(run.manifest)

    with pytest.raises(CheckpointError, match=r"manifest\.json: is corrupt: is not a file"):
        run.read_manifest()


def test_a_huge_record_is_refused_by_its_size(tmp_path):
    with (tmp_path / "huge.json").open("wb") as stream:
        stream.truncate(2**40)

    with pytest.raises(ValueError, match=r"has 1\.0 TiB, more than any record"):
        read_json(tmp_path / "huge.json")


LINKED = ["recipe.yaml", "manifest.json", "metrics.jsonl", "data_report.json", "quarantine.jsonl", "adapter", "merged",
          "report", "checkpoints", "checkpoints/checkpoint-9", "checkpoints/.staging",
          "checkpoints/.staging/checkpoint-9", ".merging", ".rehearsal", ".report", ".lock", ".heartbeats",
          "tracker"]  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("target", ["a file or folder", "nothing"])
def test_a_link_in_a_run_is_never_read_or_written_through(name, target, run, tmp_path):
    outside = tmp_path / "outside"
    if target != "nothing":
        outside.mkdir() if "." not in name.rpartition("/")[2][1:] else outside.write_text("mine")
    link = run.path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)

    with pytest.raises(CheckpointError, match=f"{link}: is a link; remove it"):
        refuse_links(run)
    found = CliRunner().invoke(app, ["finish", str(run.path)])
    assert found.exit_code == 1 and ("is a link" in found.output or "no run here" in found.output)
    if (run.manifest.is_file() and run.recipe.is_file()) or name == "checkpoints":
        found = CliRunner().invoke(app, ["verify", str(run.path)])
        assert found.exit_code == 1 and f"{link}: is a link" in found.output
    assert not list(outside.glob("*")) and (not outside.is_file() or outside.read_text() == "mine")


def test_a_run_folder_may_itself_be_reached_by_a_link(run, tmp_path):
    (tmp_path / "link").symlink_to(run.path)

    refuse_links(RunDirectory(tmp_path / "link"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return merges.finished_run(tmp_path_factory.mktemp("damaged"), dtype="float32", export={"dtype": "float32"})


ADAPTER_FILES = {
    "adapter_config.json": WHOLE_FILES,
    "adapter_model.safetensors": {
        "empty": b"", "cut": b"\x10\0\0\0\0\0\0\0{}", "deep": (2**17).to_bytes(8, "little") + b"[" * 2**17,
        "a pickle": pickle.dumps({"weight": 1}),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, damages in ADAPTER_FILES.items() for damage in damages]
)
def test_a_damaged_file_of_an_adapter_is_named(name, damage, finished, tmp_path):
    run, recipe = finished
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    (copy.adapter / name).write_bytes(ADAPTER_FILES[name][damage])
    merges.seal_again(copy.adapter)

    with pytest.raises(EyasError, match=f"{copy.adapter}"):
        merges.merged(copy, recipe)
    assert not copy.merged.exists() and not copy.merging.exists()
