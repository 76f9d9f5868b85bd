"""The command line: version, short help, completion, whole sentences, and errors that begin with their place."""

import logging
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from eyas import __version__, errors
from eyas.cli.errors import errors_as_text, quieten_libraries
from eyas.cli.main import app

VERBS = [*sorted(command.name for command in app.registered_commands), "selftest"]


def shown(*words):
    found = CliRunner().invoke(app, [*words], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert found.exit_code == 0, found.output
    return found.output


def test_the_version_is_printed():
    assert shown("--version") == f"eyas {__version__}\n"


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_short_and_long_and_no_sentence_is_cut(verb):
    words = [verb] if verb else []

    short = shown(*words, "-h")

    assert short == shown(*words, "--help") and "Usage: " in short
    listed = short.partition("Commands:")[2]
    assert "..." not in listed and "…" not in listed
    for name in VERBS if not verb else []:
        assert any(line.split()[:1] == [name] and line.endswith(".") for line in listed.splitlines()), name


def test_settings_are_shown_as_they_are_typed():
    assert "[SECTION.KEY=VALUE]..." in shown("train", "--help") and "[[" not in shown("check", "--help")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("eyas me", "merge"),
        ("eyas selftest re", "resume"),
        ("eyas train --res", "--resume"),
        ("eyas --ver", "--version"),
    ],
)
def test_a_shell_completes_commands_and_options(typed, offered):
    environment = os.environ | {
        "_EYAS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1),
    }  # fmt: skip
    command = [sys.executable, "-c", "from eyas.cli.main import app; app(prog_name='eyas')"]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert offered in done.stdout.split(), done.stderr


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EyasError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_begins_with_its_place_and_names_no_class(kind, capsys):
    with pytest.raises(SystemExit) as left, errors_as_text():
        raise kind("recipe.yaml:3:1: model.name: is missing; name a model")

    assert left.value.code == 1
    assert capsys.readouterr().err == "recipe.yaml:3:1: model.name: is missing; name a model\n"


def test_a_refused_start_says_refused_once(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: sft\nmodel: {name: ./nothing}\ndata: {train: {path: no.jsonl}}\nadapter: {method: lora}\n")

    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "eyas", "preview", str(recipe)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) >= 2
    assert all(line.count("refused") == 1 and "Error" not in line for line in lines)


@pytest.mark.parametrize(
    ("logger", "text", "kept"),
    [
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward from kernels-community: x", False),
        ("bitsandbytes.backends.cpu.ops", "another warning", True),
        ("bitsandbytes.cextension", "Failed to load CPU gemm_4bit_forward", True),
        ("DeepSpeed", "Setting accelerator to CPU. If you have GPU", False),
        ("DeepSpeed", "another warning", True),
    ],
)
def test_only_named_warnings_of_libraries_are_left_out(logger, text, kept):
    quieten_libraries()
    record = logging.LogRecord(logger, logging.WARNING, "", 0, text, None, None)

    assert bool(logging.getLogger(logger).filter(record)) == kept
