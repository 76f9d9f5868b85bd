"""A run of an old version without recorded commits is refused until the commit is given."""

import pytest

from eyas.cli.merge import merge
from eyas.cli.report import report
from eyas.errors import CheckpointError
from hub.conftest import GUANACO, MODELS, without_sources

pytestmark = pytest.mark.slow
FALCON = MODELS["falcon7b"]


@pytest.fixture
def older_run(hub, hub_run):
    """A run of version 0.1.0 of 2026-11-28: without commits, with datasets' own fingerprints of the rows."""
    run = hub_run("falcon7b_lora", "training.max_steps=4", "training.save_steps=2", "export.dtype=float32")
    commit = run.hub_commits()[0]["commit"]
    manifest = run.read_manifest()
    recipe = run.recipe.read_text()
    for one in run.hub_commits():
        recipe = recipe.replace(f"revision: {one['commit']}", "revision: null")
    run.recipe.write_text(recipe)
    digests = {key: value for key, value in manifest["digests"].items() if key not in ("weights", "model_files")}
    digests |= {"base": "commit:unknown", "sources": {GUANACO: "None:7f3a9c0e5d1b2846"}}
    run.record(digests=digests, hub=[])
    without_sources(run.adapter)
    return run, commit


def refused(verb, capsys):
    with pytest.raises(SystemExit):
        verb()
    return capsys.readouterr().err


def test_merge_is_refused_until_the_commit_is_given(older_run, hub, capsys):
    run, commit = older_run

    message = refused(lambda: merge(run.path), capsys)

    assert f"an old version of eyas trained it and did not record the commit of {FALCON} (" in message
    assert f"--base-revision COMMIT (listed at {hub.endpoint}/{FALCON}/commits/main)" in message
    assert not run.merged.exists()
    merge(run.path, base_revision=commit)
    assert run.merged.exists() and commit in (run.merged / "README.md").read_text()


def test_the_other_commands_are_refused_too(older_run, capsys):
    run, commit = older_run

    assert "--base-revision COMMIT" in refused(lambda: report(run.path), capsys)
    report(run.path, base_revision=commit)


@pytest.mark.parametrize(
    ("revision", "expected"),
    [("main", "give the full commit, 40 hexadecimal digits"), ("f" * 40, f"commit {'f' * 40} is no longer on")],
)
def test_a_revision_that_is_not_a_commit_is_refused(revision, expected, older_run, capsys):
    assert expected in refused(lambda: merge(older_run[0].path, base_revision=revision), capsys)


def test_a_commit_that_contradicts_the_run_is_refused(hub, hub_run, capsys):
    run = hub_run("falcon7b_lora")

    message = refused(lambda: merge(run.path, base_revision="a" * 40), capsys)

    assert f"{run.path} was trained on commit:{run.hub_commits()[0]['commit']}; leave the option out" in message


def test_resuming_it_is_refused_with_the_changed_lines(older_run, hub_run):
    run, commit = older_run
    words = ("training.max_steps=4", "training.save_steps=2", "export.dtype=float32")
    run.record(status="running")

    with pytest.raises(CheckpointError) as refusal:
        hub_run("falcon7b_lora", *words, resume=True)

    assert f"recipe: +  revision: {commit}" in str(refusal.value) and "--resume-with-changes" in str(refusal.value)
