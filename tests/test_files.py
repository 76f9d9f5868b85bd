import json
import os
from hashlib import sha256

import pytest

from eyas.files import WORTH_REMEMBERING, digest_of_files, in_units, remembered_sha256, write_json


def test_a_file_is_replaced_atomically(tmp_path):
    file = tmp_path / "parity.json"
    write_json(file, {"difference": 0.25})

    with pytest.raises(TypeError):
        write_json(file, {"difference": 0.5, "tensor": object()})

    assert json.loads(file.read_text()) == {"difference": 0.25}
    assert os.listdir(tmp_path) == ["parity.json"]


def test_a_digest_covers_names_and_bytes_in_any_order(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    digest = digest_of_files([one, two])

    assert digest_of_files([two, one]) == digest
    one.write_bytes(b"2")
    two.write_bytes(b"1")
    assert digest_of_files([one, two]) != digest
    two.write_bytes(b"2")
    assert digest_of_files([one, two]) != digest


def test_two_files_and_their_concatenation_have_different_digests(tmp_path):
    for name, content in {"a": b"x", "b": b"y", "ab": b"xy"}.items():
        (tmp_path / name).write_bytes(content)

    assert digest_of_files([tmp_path / "a", tmp_path / "b"]) != digest_of_files([tmp_path / "ab"])


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 KiB"), (2**20 - 1, "1024.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**41, "2.0 TiB")]
)
def test_bytes_are_printed_in_units(count, text):
    assert in_units(count) == text


@pytest.fixture
def large_file(tmp_path, monkeypatch):
    """A file that is large enough for the digest cache, and a counter of reads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "weights.safetensors"
    file.write_bytes(bytes(WORTH_REMEMBERING))
    read = []
    monkeypatch.setattr("eyas.files._sha256", lambda path: read.append(path) or sha256(path.read_bytes()).hexdigest())
    return file, read


def test_the_digest_of_a_large_file_is_cached_by_its_size_time_and_inode(large_file):
    file, read = large_file
    digest = sha256(bytes(WORTH_REMEMBERING)).hexdigest()

    assert [remembered_sha256(file) for _ in range(3)] == [digest] * 3 and len(read) == 1

    other = file.with_suffix(".other")
    other.write_bytes(b"\1" + bytes(WORTH_REMEMBERING - 1))
    stamp = file.stat()
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(file)  # the same size, time and name
    assert remembered_sha256(file) == sha256(file.read_bytes()).hexdigest() != digest and len(read) == 2
    os.utime(file)
    remembered_sha256(file)
    assert len(read) == 3


def test_a_small_file_is_always_read_and_not_cached(large_file, tmp_path):
    _, read = large_file
    small = tmp_path / "config.json"
    small.write_text("{}")

    assert remembered_sha256(small) == remembered_sha256(small) == sha256(b"{}").hexdigest()
    assert len(read) == 2 and not (tmp_path / "cache").exists()


def test_a_damaged_or_read_only_cache_costs_only_another_read(large_file, tmp_path):
    file, read = large_file
    digest = remembered_sha256(file)
    (kept,) = (tmp_path / "cache" / "eyas" / "digests").iterdir()
    kept.write_text("[]")
    assert remembered_sha256(file) == digest and len(read) == 2

    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("a file in the way")
    assert remembered_sha256(file) == remembered_sha256(file) == digest and len(read) == 4
