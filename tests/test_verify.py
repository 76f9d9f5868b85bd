"""`eyas verify` on runs that are made without a model."""

import hashlib
import json
import os
import shutil
import time

import pytest
from typer.testing import CliRunner

from eyas.cli.main import app
from eyas.errors import CheckpointError
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, listed, seal
from eyas.verify import subjects_of

RECIPE = "task: sft\n"


def fill_and_seal(folder, **about):
    staged = folder.with_name(f".{folder.name}")
    (staged / "global_step3").mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(os.urandom(1000))
    (staged / "global_step3" / "optim.pt").write_bytes(os.urandom(100))
    seal(staged, folder, about)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "falcon")
    for step in (3, 6):
        fill_and_seal(run.checkpoint(step), kind="checkpoint", step=step)
    for folder in (run.adapter, run.merged, run.path / "export" / "gguf"):
        fill_and_seal(folder, kind=folder.name)
    run.open(RECIPE)
    run.metrics.write_text('{"step": 1}\n')
    run.data_report.write_text("{}")
    records = listed(run.path, [file.name for file in run.records()])
    digest = f"sha256:{hashlib.sha256(RECIPE.encode()).hexdigest()}"
    run.record(status="finished", digests={"recipe": digest}, records=records)
    return run


def eyas_verify(folder):
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_an_intact_run_is_listed_folder_by_folder(run):
    code, text = eyas_verify(run.path)

    assert code == 0 and "every byte is as written" in text
    rows = {words[0]: words[1:] for line in text.splitlines() if len(words := line.split()) >= 3}
    assert rows["checkpoints/checkpoint-3"] == ["3", "1,100", "whole"]
    assert rows["adapter"] == rows["merged"] == rows["export/gguf"] == ["1,100", "whole"]
    assert {"manifest.json", "recipe.yaml", "metrics.jsonl", "data_report.json"} <= rows.keys()
    assert "--resume would do nothing: the run is finished" in text


@pytest.mark.parametrize(
    "name",
    ["recipe.yaml", "metrics.jsonl", "data_report.json", "checkpoints/checkpoint-3/model.safetensors",
     "checkpoints/checkpoint-6/MANIFEST.json", "adapter/model.safetensors", "merged/global_step3/optim.pt",
     "export/gguf/model.safetensors"],
)  # fmt: skip
def test_a_flipped_bit_anywhere_in_a_run_is_reported_with_its_file(run, name):
    flip(run.path / name)

    code, text = eyas_verify(run.path)

    assert code == 1 and f"{run.path / name}: " in text and "1 fault" in text
    assert "1 of 9 are not as written" in text


def test_the_checkpoint_that_a_resume_would_take_is_printed(run):
    run.record(status="running")
    assert f"--resume would continue from {run.checkpoint(6)}" in eyas_verify(run.path)[1]

    flip(run.checkpoint(6) / "model.safetensors")
    code, text = eyas_verify(run.path)
    assert code == 1 and f"--resume would continue from {run.checkpoint(3)}" in text

    (run.checkpoint(3) / SEAL).unlink()
    assert "--resume would be refused: no checkpoint is valid" in eyas_verify(run.path)[1]

    shutil.rmtree(run.checkpoints)
    assert "--resume would start at the first step" in eyas_verify(run.path)[1]


def test_a_finished_run_without_its_adapter_has_a_fault(run):
    shutil.rmtree(run.adapter)

    code, text = eyas_verify(run.path)

    assert code == 1 and "is finished, but has neither adapter/ nor model/" in text
    assert f"--resume would continue from {run.checkpoint(6)}" in text


def test_files_that_an_unfinished_run_still_writes_are_not_verified(run):
    run.record(status="running")
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n')

    assert eyas_verify(run.path)[0] == 0


def test_broken_and_unfinished_folders_are_named_but_not_verified(run):
    folders = [run.checkpoints / "broken-checkpoint-9", run.staging / "checkpoint-7", run.merging]
    for folder in folders:
        folder.mkdir(parents=True)

    code, text = eyas_verify(run.path)

    assert code == 0
    assert all(f"renamed or unfinished, not checked: {folder}" in text for folder in folders)


def test_one_folder_of_a_run_can_be_verified_alone(run):
    assert eyas_verify(run.checkpoint(3))[0] == eyas_verify(run.adapter)[0] == 0
    (run.adapter / "payload.pkl").write_bytes(b"")

    code, text = eyas_verify(run.adapter)

    assert code == 1 and f"{run.adapter / 'payload.pkl'}: is not listed in MANIFEST.json" in text


def test_the_first_faults_are_printed_and_the_others_counted(run):
    for index in range(9):
        (run.merged / f"extra-{index}").touch()

    text = eyas_verify(run.path)[1]

    assert "9 faults" in text and "extra-4: is not listed" in text and "extra-5" not in text and "… and 4 more" in text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_an_unreadable_manifest_is_a_fault(run, content):
    run.manifest.write_bytes(content)

    code, text = eyas_verify(run.path)

    assert code == 1 and f"{run.manifest}: is not what was written" in text


def test_a_folder_without_anything_sealed_is_refused_with_a_hint(run, tmp_path):
    code, text = eyas_verify(run.path.parent)
    assert code == 1 and f"holds nothing to verify (no {SEAL}, no manifest.json)" in text
    assert f"name the folder of a run, such as {run.path}" in text

    with pytest.raises(CheckpointError, match="does not exist"):
        subjects_of(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not a folder"):
        subjects_of(run.recipe)


def test_a_run_with_only_checkpoints_left_can_be_verified(run):
    run.manifest.unlink()
    run.recipe.unlink()

    code, text = eyas_verify(run.path)

    assert code == 1 and f"{run.manifest}: is missing" in text and f"{run.recipe}: is missing" in text
    assert "--resume would be refused: manifest.json, recipe.yaml cannot be trusted" in text


@pytest.mark.slow
def test_every_file_of_a_trained_run_is_verified(trained):
    run, _ = trained("minilm_lora_sentiment", "training.save_steps=1")
    assert eyas_verify(run.path)[0] == 0
    assert {"metrics.jsonl", "data_report.json"} <= run.read_manifest()["records"].keys()
    sealed = [file for file in run.path.rglob("*") if file.is_file() and file.name not in (".lock", "manifest.json")]
    assert len(sealed) > 25
    for file in sealed:
        whole = file.read_bytes()
        flip(file)
        code, text = eyas_verify(run.path)
        assert code == 1 and str(file) in text, file
        file.write_bytes(whole)
    assert eyas_verify(run.path)[0] == 0


@pytest.mark.slow
@pytest.mark.alone
def test_a_gigabyte_is_verified_in_less_than_ten_seconds(tmp_path):
    staged = tmp_path / "staged"
    staged.mkdir()
    for shard in range(2):
        with (staged / f"model-{shard}.safetensors").open("wb") as stream:
            stream.truncate(2**29)
    seal(staged, tmp_path / "merged", {"kind": "merged"})

    started = time.monotonic()
    code, text = eyas_verify(tmp_path / "merged")

    assert code == 0 and "1,073,741,824" in text
    assert time.monotonic() - started < 10


def test_the_help_explains_the_faults_and_the_exit_codes():
    text = " ".join(CliRunner().invoke(app, ["verify", "--help"]).output.split())

    assert (
        "MANIFEST.json with the SHA-256 of every file" in text
        and "Exits with 0 if every byte is as written, else with 1" in text
    )


def test_a_manifest_can_be_checked_without_eyas(run):
    manifest = json.loads((run.adapter / SEAL).read_text())

    for name, entry in manifest["files"].items():
        assert hashlib.sha256((run.adapter / name).read_bytes()).hexdigest() == entry["sha256"]
