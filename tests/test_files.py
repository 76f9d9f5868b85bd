import json
import os

import pytest

from eyas.files import digest_of_files, in_units, write_json


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "parity.json"
    write_json(file, {"difference": 0.25})

    with pytest.raises(TypeError):
        write_json(file, {"difference": 0.5, "tensor": object()})

    assert json.loads(file.read_text()) == {"difference": 0.25}
    assert os.listdir(tmp_path) == ["parity.json"]


def test_a_digest_is_of_names_and_bytes_in_any_order(tmp_path):
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


def test_a_digest_of_two_files_is_not_that_of_one_that_holds_both(tmp_path):
    for name, content in {"a": b"x", "b": b"y", "ab": b"xy"}.items():
        (tmp_path / name).write_bytes(content)

    assert digest_of_files([tmp_path / "a", tmp_path / "b"]) != digest_of_files([tmp_path / "ab"])


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 KiB"), (2**20 - 1, "1024.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**41, "2.0 TiB")]
)
def test_bytes_are_told_in_units(count, text):
    assert in_units(count) == text
