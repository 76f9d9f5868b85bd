"""`eyas --help` and `eyas check` take under a second because they do not import torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eyas.sealing import seal

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes", "wandb"}
PROGRAM = """
import sys
sys.path.insert(0, {source!r})
import eyas
assert eyas.__file__.startswith({source!r}), eyas.__file__
from eyas.__main__ import main
sys.argv = ["eyas", *{arguments!r}]
try:
    main()
except SystemExit as exit:
    print("EXIT", exit.code or 0)
print("HEAVY", *sorted({heavy!r} & sys.modules.keys()))
"""


def imported_by(arguments: list[str], source: Path = ROOT / "src") -> set[str]:
    """Return the heavy packages that a command of this source imports."""
    program = PROGRAM.format(source=str(source), arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    *_, code, heavy = done.stdout.splitlines()
    assert code == "EXIT 0", done.stdout + done.stderr
    return set(heavy.split()[1:])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["verify", "--help"],
        ["selftest", "resume", "--help"],
        ["check", "recipes/falcon7b_qlora.yaml"],
        ["schema"],
        ["schema", "--markdown"],
    ],
    ids=" ".join,
)
def test_a_command_without_a_model_does_not_import_torch(arguments):
    assert imported_by(arguments) == set()


def test_a_run_is_verified_without_torch(tmp_path):
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "adapter_model.safetensors").write_bytes(b"weights")
    seal(tmp_path / "staged", tmp_path / "adapter", {"kind": "adapter"})

    assert imported_by(["verify", str(tmp_path / "adapter")]) == set()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["recipe/section.py", "run_directory.py", "cli/train.py", "__init__.py"])
def test_an_import_of_torch_at_the_head_of_a_file_is_caught(file, tmp_path):
    shutil.copytree(ROOT / "src/eyas", tmp_path / "eyas")
    planted = tmp_path / "eyas" / file
    planted.write_text("import torch\n" + planted.read_text())

    assert "torch" in imported_by(["check", "recipes/falcon7b_qlora.yaml"], source=tmp_path)
