"""The project speaks plain English of the field; tests/voice.py has the rules."""

import subprocess
import sys
from pathlib import Path

import pytest

import voice
from conftest import ROOT


def test_docstrings_messages_and_documents_keep_the_voice():
    found = list(voice.texts([ROOT / name for name in voice.WHERE]))

    assert len(found) > 3000
    assert [f"{text.file}:{text.line}: {problem}" for text in found for problem in voice.problems(text)] == []


def test_first_sentences_are_short():
    found = list(voice.texts([ROOT / "src", ROOT / "launch"]))

    assert voice.median_words(found) <= voice.MEDIAN


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["", "check", "demo", "evaluate", "finish", "generate", "merge", "parameters",
                                  "preview", "report", "schema", "selftest", "train", "verify"])  # fmt: skip
def test_help_keeps_the_voice(verb):
    command = [sys.executable, "-m", "eyas", *filter(None, [verb]), "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = voice.Text(Path("--help"), 1, "paragraph", printed)
    assert printed.count(" ") > 20
    assert list(voice.problems(text)) == []


@pytest.mark.parametrize(
    ("sentence", "problem"),
    [
        ("What a probe found out about a model.", "opens with a headless clause"),
        ("Return the rows that are learnt.", "'learnt': trained, supervised"),
        ("Return " + "one more word " * 10 + "than a reader can hold.", "first sentence has 36 words"),
    ],
)
def test_a_planted_sentence_is_found(sentence, problem, tmp_path):
    file = tmp_path / "planted.py"
    file.write_text(f'def planted():\n    """{sentence}"""\n')

    (text,) = voice.texts([file])

    assert (text.line, text.kind) == (2, "docstring")
    assert any(found.startswith(problem) for found in voice.problems(text))


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ('raise ValueError("what was told of this recipe is wrong")', "message"),
        ('say(f"{name}: mend the row, or leave it out")', "message"),
        ("# The reader hangs on this order.", "comment"),
    ],
)
def test_messages_and_comments_are_read_too(source, kind, tmp_path):
    file = tmp_path / "planted.py"
    file.write_text(source + "\n")

    assert {text.kind for text in voice.texts([file]) if list(voice.problems(text))} == {kind}


def test_code_in_backticks_is_left_out():
    text = voice.Text(Path("x.md"), 1, "paragraph", "`verdicts` is the name of a folder; see [it](docs/lever.md).")

    assert list(voice.problems(text)) == []


def test_a_question_may_open_with_its_word():
    assert not list(voice.problems(voice.Text(Path("x.py"), 1, "docstring", "How fast are eyas and TRL?")))
