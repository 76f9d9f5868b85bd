import pickle

import pytest
import torch

from eyas.training.resume.safe_load import tensors_only


class Payload:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_payload_is_not_executed_even_where_the_reader_allows_pickles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": torch.zeros(2), "more": Payload()}, "state.pt")

    with tensors_only(deepspeed=True), pytest.raises(pickle.UnpicklingError):
        torch.load("state.pt", weights_only=False)
    assert not (tmp_path / "executed").exists()

    torch.load("state.pt", weights_only=False)
    assert (tmp_path / "executed").exists()  # so the payload is one


def test_deepspeed_s_plain_classes_are_loaded(tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    kept = {"scaler": DynamicLossScaler(16.0, 2.0, 1000, 1.0, 1, False), "step": 3}
    torch.save(kept, tmp_path / "state.pt")

    with tensors_only(deepspeed=True):
        assert torch.load(tmp_path / "state.pt", weights_only=False)["scaler"].cur_scale == 16.0
    with tensors_only(deepspeed=False), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "state.pt")
