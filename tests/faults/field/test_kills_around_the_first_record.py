"""A kill or a failing disk at any file operation around a run's first record leaves a folder that can be used."""

import errno
import json
import os
import sys
import traceback
from types import SimpleNamespace

import pytest

from eyas.errors import CheckpointError
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, faults, seal
from eyas.training import manifest as module
from eyas.training.guards.disk_errors import disk_errors_as_text
from eyas.training.resume.run_folder import continues, refuse_foreign_folder
from prepared_rows import prepared, write_rows

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "shutil.copyfile", "os.truncate"}
MOST = 80


def in_a_child(act, folder, when, how):
    """Run `act` in a fork that is killed, or whose disk fails, at the file operation of this number in a folder.

    Return the fork's exit code: 0 where the act came to its end, 9 after a kill, 5 after a refusal in words.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seen = []

    def count(event, arguments):
        if event in OPERATIONS and any(str(folder) in str(each) for each in arguments[:2]):
            seen.append(event)
            if len(seen) == when and how == "killed":
                os._exit(9)
            writes = event != "open" or (len(arguments) > 2 and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if len(seen) >= when and how != "killed" and writes and event != "os.remove":
                raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)), str(arguments[0]))

    sys.addaudithook(count)
    code = 7
    try:
        act()
        code = 0
    except CheckpointError:
        code = 5
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Record the start of a run with invalid rows, as `train` does."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "one row"}, {"text": "another"}, {"text": 3}])
    splits = prepared(rows, tmp_path, bad_rows="skip", max_bad_rows=1)
    monkeypatch.setattr(module, "_as_record", lambda names, start: {"status": "running", "digests": {}})
    recipe = Recipe.model_validate({"task": "sft", "model": {"name": "m"}, "data": {"train": {"path": str(rows)}}})
    run = RunDirectory(tmp_path / "run")

    def record():
        with run.locked(), disk_errors_as_text(run):
            module.record_start(run, SimpleNamespace(recipe=recipe), SimpleNamespace(splits=splits), None, [])

    return run, record, recipe.to_yaml()


@pytest.mark.parametrize("how", ["killed", "ENOSPC", "EROFS", "EDQUOT"])
@pytest.mark.parametrize("earlier", [False, True], ids=["first start", "after a failed one"])
def test_a_start_stopped_at_any_operation_can_be_made_again_or_resumed(earlier, how, start, tmp_path):
    run, record, recipe = start
    events = 0
    for when in range(1, MOST + 1):
        if earlier:
            record()
            run.record(status="failed", reason="out of memory", without_gradient=["x"])
            run.metrics.write_text('{"step": 1}\n')

        code = in_a_child(record, run.path, when, how)

        if code == 0:
            break
        assert code == (9 if how == "killed" else 5), (when, code)
        events += 1
        for resume in (False, *([True] if run.lock_file.exists() else [])):
            refuse_foreign_folder(run, resume)
            assert not continues(run, resume)
    assert code == 0 and events >= (7 if how == "killed" else 2)
    record()
    assert json.loads(run.manifest.read_text()) == {"status": "running", "digests": {}}
    assert run.recipe.read_text() == recipe and json.loads(run.quarantine.read_text())["line"] == 3
    assert run.metric_lines() == [] and faults(run.held_out) == []


@pytest.mark.parametrize("how", ["killed", "ENOSPC", "EROFS"])
def test_a_seal_stopped_at_any_operation_is_whole_or_not_there(how, tmp_path):
    events = 0
    for when in range(1, MOST + 1):
        folder = tmp_path / str(when)
        staged, final = folder / "staged", folder / "final"
        staged.mkdir(parents=True)
        (staged / "rows.arrow").write_bytes(b"rows")

        code = in_a_child(lambda staged=staged, final=final: seal(staged, final, {"kind": "rows"}), folder, when, how)

        if code == 0:
            break
        events += 1
        assert not final.exists() or faults(final) == []
        if not final.exists():
            assert not (staged / SEAL).exists() or faults(staged) == [] or (staged / SEAL).stat().st_size == 0
            seal(staged, final, {"kind": "rows"})
        assert faults(final) == []
    assert code == 0 and events >= 2
