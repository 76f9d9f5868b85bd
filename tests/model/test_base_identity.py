"""Identity of a base: digests of its files, read by rank 0 only."""

import hashlib

import pytest

from eyas.model import base_identity as module
from eyas.model.base_identity import base_identity
from eyas.recipe.model import Model

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"tokens"}


@pytest.fixture
def base(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    return Model(name=str(tmp_path), dtype="float32")


def digest_of(*names):
    lines = [f"{name}:{hashlib.sha256(FILES[name]).hexdigest()}\n" for name in names]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_local_base_has_digests_of_all_files_and_of_its_weights(base):
    identity = base_identity(base)

    assert identity.base == digest_of("config.json", "model.safetensors", "tokenizer.json")
    assert identity.weights == digest_of("model.safetensors")
    assert identity.differences({"base": identity.base, "weights": identity.weights}) == []


def test_changed_weights_are_a_difference_of_base_and_weights(base, tmp_path):
    before = base_identity(base)
    (tmp_path / "model.safetensors").write_bytes(b"others")

    lines = base_identity(base).differences({"base": before.base, "weights": before.weights})

    assert [line.partition(":")[0] for line in lines] == ["the base model", "the base model's weights"]


def test_other_ranks_read_no_file(base, tmp_path, monkeypatch):
    answers = {}

    def on_rank_zero(name, decide):
        return answers.setdefault(name, decide())

    monkeypatch.setattr(module, "broadcast_from_rank_zero", on_rank_zero)
    expected = base_identity(base)
    monkeypatch.setattr(module, "broadcast_from_rank_zero", lambda name, decide: answers[name])
    for name in FILES:
        (tmp_path / name).unlink()

    assert base_identity(base) == expected
    assert len(answers) == 1 + len(FILES)  # the names, and one digest for each file
