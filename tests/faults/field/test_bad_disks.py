"""Full, read-only and closed disks, in the words of the system and without half a result."""

import errno
import os

import pytest
from safetensors import SafetensorError

import merges
from eyas.cli.errors import errors_as_text
from eyas.evaluation import report
from eyas.evaluation.compare import compare
from eyas.sealing import faults

NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG]


def of_the_system(number):
    return OSError(number, os.strerror(number), "RUN/merged/model.safetensors")


def of_safetensors(number):
    return SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")


def of_a_library_that_hides_it(number):
    error = RuntimeError("could not save")
    error.__cause__ = of_the_system(number)
    return error


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("error", [of_the_system, of_safetensors, of_a_library_that_hides_it])
def test_a_disk_error_of_any_command_is_one_line(number, error, capsys):
    with pytest.raises(SystemExit) as left, errors_as_text():
        raise error(number)

    printed = capsys.readouterr().err
    file = "RUN/merged/model.safetensors: " if error is of_the_system else ""
    assert left.value.code == 1
    assert printed == f"{file}{os.strerror(number)}; free some space, or check who may read and write there\n"


@pytest.mark.parametrize("error", [KeyError("a"), FileNotFoundError(errno.ENOENT, "No such file"), ValueError("b")])
def test_any_other_error_keeps_its_traceback(error):
    with pytest.raises(type(error)), errors_as_text():
        raise error


@pytest.fixture
def written(tmp_path):
    """Return a run with a report, and a function that writes it again."""
    run, recipe = merges.finished_run(tmp_path, dtype="float32")
    run.metrics.write_text('{"step": 1, "loss": 1.0}\n')
    records = {"tuned": [{"loss": 1.0}, {"loss": 2.0}]}

    def write():
        report.write_report(run, recipe, compare(records, {}), records, {})

    return run, write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("during", ["write_records", "plot_loss", "plot_scores", "_markdown", "seal"])
@pytest.mark.parametrize("before", ["no report", "a report"])
def test_a_report_is_written_whole_or_not_at_all(number, during, before, written, monkeypatch):
    run, write = written
    monkeypatch.setattr(report, "_markdown", lambda *_: "# page")
    monkeypatch.setattr(report, "plot_loss", lambda *_: None)
    monkeypatch.setattr(report, "plot_scores", lambda *_: None)
    if before == "a report":
        write()

    def fail(*_):
        raise of_the_system(number)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(number)):
        patch.setattr(report, during, fail)
        write()

    assert run.report.exists() == (before == "a report") and (before == "no report" or faults(run.report) == [])
    assert not list(run.path.glob(".report*"))
    write()
    assert {"report.md", "tuned.jsonl"} <= {file.name for file in run.report.iterdir()} and faults(run.report) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("during", ["listed", "write_json", "write_seal", "put_in_place"])
def test_a_merge_is_written_whole_or_not_at_all(number, during, tmp_path, monkeypatch):
    run, recipe = merges.finished_run(tmp_path, dtype="float32", export={"dtype": "float32"})

    def fail(*_):
        raise of_the_system(number)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(number)):
        patch.setattr(f"eyas.export.artifact.{during}", fail)
        merges.merged(run, recipe)

    assert not run.merged.exists() and not run.merging.exists()
