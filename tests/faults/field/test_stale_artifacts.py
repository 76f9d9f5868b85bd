"""Results of a run that were made from something that has changed since."""

import os

import pytest
from typer.testing import CliRunner

import merges
from eyas.cli.main import app
from eyas.errors import CheckpointError, ExportError
from eyas.evaluation.report import refuse_to_overwrite
from eyas.export.reference import FinishedRun
from eyas.inference.load import load
from eyas.run_directory import RunDirectory
from eyas.sealing import read_seal, seal
from eyas.verify import MADE_FROM, outdated, refuse_outdated, sources_of

DIGESTS = {
    "recipe": "sha256:aa",
    "base": "sha256:bb",
    "weights": "sha256:cc",
    "data": {"train": "1", "evaluation": "2"},
}


def make(run, name):
    """Seal a folder of a run with what it is made from."""
    folder = run.path / name
    staged = folder.with_name(f".{folder.name}")
    staged.mkdir(parents=True)
    (staged / "content").write_bytes(os.urandom(100))
    seal(staged, folder, {"kind": folder.name, MADE_FROM: sources_of(run, folder)})
    return folder


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.record(status="finished", digests=DIGESTS)
    for name in ("checkpoints/checkpoint-3", "adapter", "merged", "export/gguf", "report"):
        make(run, name)
    return run


def changed_digest(name, value):
    return lambda run: run.record(digests={**DIGESTS, name: value})


CHANGES = {
    "the adapter was trained further": (lambda run: make(run, "adapter"), {"merged", "export/gguf", "report"}),
    "merged again": (lambda run: make(run, "merged"), {"report"}),
    "another base": (
        changed_digest("base", "sha256:dd"),
        {"checkpoints/checkpoint-3", "adapter", "merged", "export/gguf", "report"},
    ),
    "other weights of the base": (
        changed_digest("weights", "sha256:dd"),
        {"checkpoints/checkpoint-3", "adapter", "merged", "export/gguf", "report"},
    ),
    "other held-out rows": (
        changed_digest("data", {"train": "1", "evaluation": "3"}),
        {"checkpoints/checkpoint-3", "adapter", "report"},
    ),
    "other training rows": (
        changed_digest("data", {"train": "4", "evaluation": "2"}),
        {"checkpoints/checkpoint-3", "adapter", "report"},
    ),
    "another recipe": (changed_digest("recipe", "sha256:ee"), {"checkpoints/checkpoint-3", "adapter"}),
    "nothing": (lambda run: None, set()),
    "the merged model was removed": (lambda run: (run.path / "merged").rename(run.path / ".gone"), set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_is_outdated_as_soon_as_one_of_its_sources_changes(change, run):
    act, stale = CHANGES[change]

    act(run)

    names = ["checkpoints/checkpoint-3", "adapter", "merged", "export/gguf", "report"]
    assert {name for name in names if outdated(run, run.path / name)} == stale


def test_a_full_fine_tuning_that_trained_further_makes_its_merged_model_outdated(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.record(digests=DIGESTS)
    make(run, "model")
    make(run, "merged")

    make(run, "model")

    with pytest.raises(CheckpointError, match=r"merged: was made from another model \([0-9a-f]{20}…, now [0-9a-f]{20}"):
        refuse_outdated(run, run.merged, "remove it")


@pytest.mark.parametrize("name", ["merged", "export/gguf", "report"])
@pytest.mark.parametrize("of", ["run", "folder"])
def test_verify_fails_for_an_outdated_result_whose_bytes_are_whole(name, of, run):
    run.open("task: sft\n")

    assert verified(run.path / name if of == "folder" else run.path, name) == "whole"
    make(run, "adapter")

    assert verified(run.path / name if of == "folder" else run.path, name) == "was made from another adapter"


def verified(folder, name):
    """Return what `eyas verify` prints of a folder."""
    found = CliRunner().invoke(app, ["verify", str(folder)])
    fault = f"{name}: was made from another adapter ("
    assert found.exit_code in (0, 1) and (fault in found.output) <= (found.exit_code == 1)
    return "was made from another adapter" if fault in found.output else "whole"


@pytest.fixture(scope="module")
def merged_run(tmp_path_factory):
    """Return a run with a merged model whose adapter changes afterwards."""
    run, recipe = merges.finished_run(tmp_path_factory.mktemp("stale"), dtype="float32", export={"dtype": "float32"})
    merges.merged(run, recipe)
    before = read_seal(run.merged)[MADE_FROM]["adapter"]
    merges.change_json(run.adapter / "adapter_config.json", lora_alpha=16)
    merges.seal_again(run.adapter)
    assert before != read_seal(run.adapter)["sha256"]
    return run, recipe


def test_no_verb_uses_a_merged_model_of_an_earlier_adapter(merged_run):
    run, recipe = merged_run

    with pytest.raises(CheckpointError, match=r"merged: was made from another adapter .*make it again with eyas merge"):
        load(run, recipe, "AutoModelForCausalLM", None, "merged")
    with pytest.raises(CheckpointError, match=r"merged: was made from another adapter .*remove it to merge again"):
        merges.merged(run, recipe)


def test_a_merged_model_of_this_adapter_is_still_not_overwritten(merged_run, tmp_path):
    run, recipe = merges.finished_run(tmp_path, dtype="float32")
    make(run, "merged")

    with pytest.raises(ExportError, match="merged: exists already"):
        merges.merge(FinishedRun(run, recipe, "AutoModelForCausalLM", None, None), [], None)


@pytest.mark.parametrize("foreign", ["notes.txt", "an edited page", "a folder of an earlier version"])
def test_a_report_never_deletes_a_file_that_eyas_did_not_write(foreign, run):
    file = run.report / ("notes.txt" if foreign == "notes.txt" else "content")
    file.write_text("mine")
    if foreign.endswith("version"):
        (run.report / "MANIFEST.json").unlink()

    with pytest.raises(CheckpointError, match="move or remove"):
        refuse_to_overwrite(run)

    assert file.read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_is_trained_further_leaves_nothing_that_passes_as_its_proof(trained, capsys):
    """Train, merge, report, train further: each verb names the folder that is left from before."""
    run, _ = trained("smollm2_qlora_quickstart", "quantization=null", "model.dtype=float32")
    eyas = CliRunner()
    for verb in ("merge", "report"):
        assert eyas.invoke(app, [verb, str(run.path)]).exit_code == 0
    assert eyas.invoke(app, ["verify", str(run.path)]).exit_code == 0

    trained(
        "smollm2_qlora_quickstart", "quantization=null", "model.dtype=float32", "training.max_steps=3", resume=True,
        with_changes=True,
    )  # fmt: skip

    printed = capsys.readouterr().out
    assert f"{run.merged}: was made from the result before" in printed and f"{run.report}: was made" in printed
    found = eyas.invoke(app, ["verify", str(run.path)])
    assert found.exit_code == 1
    assert "merged: was made from another adapter" in found.output
    assert "report: was made from another adapter" in found.output
    assert eyas.invoke(app, ["evaluate", str(run.path)]).exit_code == 0, "the adapter itself is up to date"
    for words in (
        ["evaluate", "--model", "merged"],
        ["generate", "--model", "merged", "--prompt", "a"],
        ["report"],
        ["merge"],
    ):
        found = eyas.invoke(app, [words[0], str(run.path), *words[1:]])
        assert found.exit_code == 1 and "merged: was made from another adapter" in found.output, words


@pytest.mark.slow
def test_an_adapter_from_before_a_change_is_not_used_while_the_changed_run_is_unfinished(trained, monkeypatch):
    run, _ = trained("smollm2_qlora_quickstart", "quantization=null")
    monkeypatch.setattr("eyas.training.run.fit", lambda *_: None)
    trained(
        "smollm2_qlora_quickstart", "quantization=null", "training.max_steps=3", "training.learning_rate=0.001",
        resume=True, with_changes=True,
    )  # fmt: skip

    for verb in (["evaluate"], ["merge"], ["report"], ["generate", "--prompt", "a"]):
        found = CliRunner().invoke(app, [verb[0], str(run.path), *verb[1:]])
        assert found.exit_code == 1 and "adapter: was made from another recipe" in found.output, verb
    found = CliRunner().invoke(app, ["finish", str(run.path)])
    assert found.exit_code == 1 and "checkpoint-2: was made from another recipe" in found.output, found.output
