"""A console that closes, fills up, or lacks a character ends no training."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from eyas.cli.console import LastingStream

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"


MORE = pytest.mark.sweep


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    ["pipe", "closed", "ascii", pytest.param("full", marks=MORE), pytest.param("both pipe", marks=MORE),
     pytest.param("both full", marks=MORE)],
)  # fmt: skip
def test_a_training_outlasts_its_console(how, fork_server, overrides_for, tmp_path):
    words = [RECIPE, *overrides_for(RECIPE), "quantization=null", f"run_directory={tmp_path / 'run'}"]

    codes, text = fork_server.run(
        words, tmp_path / "log", script="tests/faults/field/odd_console.py", EYAS_TEST_CONSOLE=how
    )

    assert codes == [0], text[-3000:]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "finished"
    assert "Error" not in text


class Broken(io.TextIOBase):
    """A stream on a file whose writes fail from the second one on."""

    def __init__(self, number, file):
        self.number, self.file, self.writes = number, file, 0

    def fileno(self):
        return self.file.fileno()

    def write(self, text):
        self.writes += 1
        if self.writes > 1:
            raise OSError(self.number, os.strerror(self.number))
        return len(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT])
def test_text_that_cannot_be_written_is_dropped_and_the_descriptor_leads_nowhere(number, tmp_path):
    with (tmp_path / "out").open("w") as file:
        stream = LastingStream(Broken(number, file))

        for text in ("one", "two", "three"):
            print(text, file=stream, flush=True)
        os.write(file.fileno(), b"from C")

    assert (tmp_path / "out").read_text() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_a_character_that_the_console_lacks_is_escaped(encoding):
    program = "from eyas.cli.console import encode_everything\nencode_everything()\nprint('1–2 ▁▂█ loss é')"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding}
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "\\u2581\\u2582\\u2588" in done.stdout.decode(encoding) or encoding == "koi8-r"
    assert "loss" in done.stdout.decode(encoding)


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_the_next_opened_file_does_not_become_a_closed_standard_output(closed, tmp_path):
    program = (
        "import os, sys\nfrom eyas.cli.console import outlast_the_console\noutlast_the_console()\n"
        f"stream = open({str(tmp_path / 'file')!r}, 'w')\nprint('said'); print('said', file=sys.stderr)\n"
        "os.write(1, b'from C'); os.write(2, b'from C'); stream.write('mine'); stream.close()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, preexec_fn=lambda: [os.close(number) for number in closed],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip

    assert done.returncode == 0 and (tmp_path / "file").read_text() == "mine"
