"""Demo downloads have the pinned digests, and the rows are as documented."""

from pathlib import Path

import pytest

from conftest import RECIPES
from eyas.cli.demo import Part, unpack_missing
from eyas.demo.assets import Asset, fetch
from eyas.demo.sentences import SENTENCE_FILES, _as_chat, _sentiment
from eyas.errors import DataError
from eyas.recipe import load_recipe


def test_a_file_with_another_digest_is_refused_and_not_opened(tmp_path):
    (tmp_path / "thing.whl").write_bytes(b"something else")

    with pytest.raises(DataError, match="not the pinned abc; remove it and try again"):
        fetch(Asset("thing==1", "thing.whl", "abc"), tmp_path, print)


@pytest.mark.parametrize(
    ("there", "added", "line"),
    [
        ((), ("chats", "tags"), "unpacking {folder} …"),
        (("chats",), ("tags",), "unpacking {folder}: tags …"),
        (("chats", "tags"), (), "{folder}: exists already"),
    ],
)
def test_missing_files_are_added_and_no_file_is_replaced(there, added, line, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo" / "sentences"
    for name in there:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("edited")
    monkeypatch.setattr("eyas.demo.assets.fetch", lambda asset, cache, say: tmp_path)
    part = Part(Asset("rows==1", "rows.whl", ""), _write_rows, ("chats", "tags"))

    unpack_missing({folder: part}, tmp_path / "demo" / ".packages")

    expected = dict.fromkeys(there, "edited") | dict.fromkeys(added, "unpacked")
    assert {file.name: file.read_text() for file in folder.iterdir()} == expected
    assert capsys.readouterr().out.splitlines() == [line.format(folder=folder)]
    assert sorted(file.name for file in folder.parent.iterdir()) == [".packages", "sentences"]


def _write_rows(archive, folder):
    folder.mkdir()
    for name in ("chats", "tags"):
        (folder / name).write_text("unpacked")


def test_a_demo_has_the_files_that_the_shipped_recipes_read():
    data = [load_recipe(file).data for file in RECIPES]
    paths = [Path(source.path) for one in data for source in (*one.training_sources, one.evaluation) if source]

    assert {path.name for path in paths if path.parent == Path("demo/sentences")} == set(SENTENCE_FILES)


@pytest.mark.parametrize(
    ("rating", "sentiment"),
    [(-0.8, "neutral"), (0.8, "neutral"), (0.81, "positive"), (-0.81, "negative"), (4.0, "positive")],
)
def test_neutral_is_within_eight_tenths(rating, sentiment):
    assert _sentiment(rating) == sentiment


def test_a_chat_requests_json_and_its_answer_is_json():
    chat = _as_chat({"text": "fine.", "source": "tweet", "sentiment": "positive"})["messages"]

    assert [message["role"] for message in chat] == ["system", "user", "assistant"]
    assert chat[2]["content"] == '{"source": "tweet", "sentiment": "positive"}'
