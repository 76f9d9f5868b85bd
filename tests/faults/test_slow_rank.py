"""A checkpoint is listed once every rank has written its files, not while one still does."""

from eyas.sealing import faults, read_seal
from eyas.training.resume import checkpoints


def test_a_file_that_has_another_name_while_it_is_written_is_no_part_of_a_checkpoint(tmp_path, monkeypatch):
    staged, final = tmp_path / "staged", tmp_path / "checkpoint-1"
    staged.mkdir()
    (staged / ".tmpRqbskp").write_bytes(b"weights")  # as safetensors writes a model, on a rank that is slower

    def wait_for_all(value):
        if (staged / ".tmpRqbskp").exists():
            (staged / ".tmpRqbskp").rename(staged / "model.safetensors")
        return [value]

    monkeypatch.setattr(checkpoints, "gather_objects", wait_for_all)

    checkpoints._seal_together(staged, final, step=1)

    assert read_seal(final)["files"].keys() == {"model.safetensors"} and faults(final) == []
