"""The cache of prepared rows on bad disks, and between users who do not trust each other."""

import errno
import json
import logging
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eyas.data.cache import prepared
from eyas.errors import DataError
from eyas.sealing import SEAL, listed, put_in_place, write_seal

KEY = {"rows": "1", "tokenizer": "2"}
A, B = 1234, 4321
"""Ids of two users."""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as two users")


def rows(text):
    """Return a builder of an entry with these rows."""

    def build(folder):
        (folder / "rows.arrow").write_text(text)

    return build


def never(_folder):
    pytest.fail("prepared again")


def text_of(entry):
    return (entry / "rows.arrow").read_text()


def as_user(uid, act, umask=0o022):
    """Return what `act` returns in a process of another user, or the text of its exception."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.umask(umask)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            answer = act()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return json.loads(stream.read())


@pytest.fixture
def cache():
    """Return a cache folder that two users can reach; pytest's own folders are closed to others."""
    with TemporaryDirectory(prefix="shared-", dir="/tmp") as parent:
        os.chmod(parent, 0o755)
        folder = Path(parent) / "cache"
        folder.mkdir()
        yield folder


def shared(cache, owner, mode):
    os.chown(cache, owner, owner)
    cache.chmod(mode)


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o777])
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o000])
def test_an_entry_of_the_owner_is_read_by_another_user_who_cannot_change_it(mode, umask, cache):
    shared(cache, A, mode)
    entry = as_user(A, lambda: str(prepared(cache, KEY, rows("of a"))), umask)

    assert as_user(B, lambda: text_of(prepared(cache, KEY, never))) == "of a"

    def change():
        with open(f"{entry}/rows.arrow", "w") as stream:
            stream.write("of b")

    def add():
        with open(f"{entry}/train.arrow", "w") as stream:
            stream.write("of b")

    assert "PermissionError" in as_user(B, change) and "PermissionError" in as_user(B, add)
    assert as_user(A, lambda: text_of(prepared(cache, KEY, never))) == "of a"


def replace(cache, entry, text, key=KEY):
    """Put a whole, sealed entry of another user in place, as somebody would who knows the format."""
    staged = cache / f"staged-{os.getpid()}"
    staged.mkdir()
    rows(text)(staged)
    write_seal(staged, listed(staged, ["rows.arrow"]), {"key": dict(key)})
    if entry.exists():
        entry.rename(cache / f"moved-{os.getpid()}")
    put_in_place(staged, entry)
    return "replaced"


@needs_root
@pytest.mark.parametrize("before", ["an entry of a", "no entry"])
def test_a_user_cannot_put_rows_under_the_key_of_another(before, cache):
    shared(cache, A, 0o777)
    entry = as_user(A, lambda: str(prepared(cache, KEY, rows("of a"))))
    if before == "no entry":
        for file in os.listdir(entry):
            os.unlink(f"{entry}/{file}")
        os.rmdir(entry)
    entry = cache / os.path.basename(entry)

    assert as_user(B, lambda: replace(cache, entry, "poison")) == "replaced"

    assert as_user(A, lambda: text_of(prepared(cache, KEY, rows("of a again")))) == "of a again"


@needs_root
@pytest.mark.parametrize("how", ["renamed", "linked"])
def test_an_entry_under_the_name_of_another_key_is_not_used(how, cache):
    shared(cache, A, 0o777)
    other = {**KEY, "rows": "other"}
    a, b = (as_user(A, lambda key=key: str(prepared(cache, key, rows(key["rows"])))) for key in (KEY, other))

    def swap():
        os.rename(a, f"{a}.moved")
        if how == "renamed":
            os.rename(b, a)
        else:
            os.mkdir(a)
            for name in os.listdir(b):
                os.symlink(f"{b}/{name}", f"{a}/{name}")
        return "swapped"

    assert as_user(B, swap) == "swapped"

    assert as_user(A, lambda: text_of(prepared(cache, KEY, rows("again")))) == "again"


@needs_root
@pytest.mark.parametrize(
    ("mode", "what"), [(0o755, "cache"), (0o555, "cache"), (0o700, "cache"), (0o755, "parent")]
)  # fmt: skip
def test_a_user_who_may_not_write_prepares_rows_for_one_command(mode, what, cache, caplog):
    shared(cache, A, mode)
    folder = cache if what == "cache" else cache / "below" / "it"

    def prepare():
        entry = prepared(folder, KEY, rows("of b"))
        again = prepared(folder, KEY, never)
        return [text_of(entry), str(entry), str(again), caplog.text]

    text, entry, again, log = as_user(B, prepare)

    assert text == "of b" and entry == again and not entry.startswith(str(cache))
    assert f"{folder} cannot be written (Permission denied); the rows are prepared for this command only" in log
    assert not [path for path in cache.rglob("*") if path.stat().st_uid == B]


@needs_root
def test_an_entry_that_only_its_owner_can_read_is_prepared_again_by_others(cache):
    shared(cache, A, 0o1777)
    as_user(A, lambda: str(prepared(cache, KEY, rows("of a"))), umask=0o077)

    assert as_user(B, lambda: text_of(prepared(cache, KEY, rows("of b")))) == "of b"
    assert as_user(A, lambda: text_of(prepared(cache, KEY, never))) == "of a"


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o002, 0o007])
def test_nobody_but_its_owner_may_write_to_an_entry(umask, tmp_path):
    before = os.umask(umask)
    try:
        entry = prepared(tmp_path, KEY, rows("mine"))
    finally:
        os.umask(before)

    assert {path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) for path in (entry, *entry.iterdir())} == {0}


DAMAGES = {
    "0 bytes": b"",
    "cut": b'{"key": {"rows": "1"',
    "another type": b"[1, 2]",
    "deep": b"[" * 100_000,
    "no key": b'{"files": {}}',
    "not text": b"\xff\xfe",
}


@pytest.mark.parametrize("where", ["another entry", "an unfinished entry", "this entry", "a folder of something else"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_anywhere_in_the_cache_hinders_no_start(where, damage, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    entry = prepared(tmp_path, KEY, rows("first"))
    places = {
        "another entry": tmp_path / "0123456789abcdef", "an unfinished entry": tmp_path / ".0123456789abcdef",
        "this entry": entry, "a folder of something else": tmp_path / "mine",
    }  # fmt: skip
    places[where].mkdir(exist_ok=True)
    (places[where] / SEAL).write_bytes(DAMAGES[damage])

    assert text_of(prepared(tmp_path, {**KEY, "rows": "3"}, rows("third"))) == "third"
    assert text_of(prepared(tmp_path, KEY, rows("again"))) == ("again" if where == "this entry" else "first")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("during", ["rows", "seal"])
def test_a_disk_that_takes_no_more_is_reported_and_leaves_nothing(number, during, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    def build(folder):
        rows("half")(folder)
        if during == "rows":
            fail()

    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        if during == "seal":
            patch.setattr("eyas.sealing.os.fsync", fail)
        prepared(tmp_path / "cache", KEY, build)

    assert str(error.value).startswith(f"data.cache_directory: {tmp_path / 'cache'} cannot be written: ")
    assert os.strerror(number) in str(error.value)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []
    assert text_of(prepared(tmp_path / "cache", {**KEY, "rows": "2"}, rows("whole"))) == "whole"


def test_an_error_about_another_file_is_not_blamed_on_the_cache(tmp_path):
    def build(_folder):
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/rows.jsonl")

    with pytest.raises(PermissionError, match=r"/somewhere/rows\.jsonl"):
        prepared(tmp_path / "cache", KEY, build)


@pytest.mark.parametrize("place", ["cache", "cache/below"])
def test_a_cache_that_is_a_file_is_refused(place, tmp_path):
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(DataError, match=r"cache.* cannot be written: .*; choose another folder"):
        prepared(tmp_path / place, KEY, rows("x"))
