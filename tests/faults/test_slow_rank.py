"""A checkpoint is listed only once every rank has written its files."""

from eyas.run_directory import RunDirectory
from eyas.sealing import faults, read_seal
from eyas.training.resume import checkpoints


def test_a_temporary_file_of_a_slow_rank_is_not_part_of_a_checkpoint(tmp_path, monkeypatch):
    staged, final = tmp_path / "staged", tmp_path / "checkpoint-1"
    staged.mkdir()
    (staged / ".tmpRqbskp").write_bytes(b"weights")  # as safetensors writes a model, on a rank that is slower

    def wait_for_all(value):
        if (staged / ".tmpRqbskp").exists():
            (staged / ".tmpRqbskp").rename(staged / "model.safetensors")
        return [value]

    monkeypatch.setattr(checkpoints, "gather_objects", wait_for_all)

    checkpoints._seal_together(staged, final, step=1, run=RunDirectory(tmp_path))

    assert read_seal(final)["files"].keys() == {"model.safetensors"} and faults(final) == []
