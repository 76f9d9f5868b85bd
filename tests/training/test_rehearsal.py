"""An adapter that could not be saved or reopened is refused before the first step."""

import pytest
from safetensors.torch import load_file, save_file

from eyas.errors import CheckpointError, PreflightError
from eyas.model import saved
from eyas.training import rehearsal

LLAMA = ("smollm2_qlora_quickstart", "training.global_batch_size=4", "training.per_device_train_batch_size=4")


@pytest.fixture
def no_step(monkeypatch):
    monkeypatch.setattr("eyas.training.run.fit", lambda *_: pytest.fail("a step was trained"))


def writes(change):
    """Return a save that changes the adapter's file afterwards."""

    def write(model, state, folder):
        saved.write_adapter(model, state, folder)
        file = folder / "adapter_model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})

    return write


def without_one(tensors):
    return dict(sorted(tensors.items())[1:])


def misshapen(tensors):
    return tensors | {name: tensor[:1].clone() for name, tensor in sorted(tensors.items())[:1]}


@pytest.mark.parametrize(
    ("change", "message"), [(without_one, "lacks \\['base_model"), (misshapen, "was saved as \\(1, 64\\)")]
)
def test_an_incomplete_save_is_refused_before_the_first_step(change, message, trained, no_step, monkeypatch):
    monkeypatch.setattr(rehearsal, "write_adapter", writes(change))

    with pytest.raises(PreflightError, match=rf"adapter: an adapter with these settings cannot be saved.*{message}"):
        trained(*LLAMA)


def test_an_adapter_that_does_not_fit_its_config_is_refused_before_the_first_step(trained, no_step, monkeypatch):
    def write(model, state, folder):
        saved.write_adapter(model, state, folder)
        file = folder / saved.ADAPTER_CONFIG
        file.write_text(file.read_text().replace('"r": 16', '"r": 8'))

    monkeypatch.setattr(rehearsal, "write_adapter", write)

    with pytest.raises(PreflightError, match="does not fit this base: size mismatch"):
        trained(*LLAMA)


def test_the_rehearsal_loads_no_weight_of_the_base_and_leaves_no_file(trained, monkeypatch):
    monkeypatch.setattr("eyas.model.trained.load_base", lambda *_: pytest.fail("the base was loaded"))
    written = []
    keep = saved.write_adapter
    monkeypatch.setattr(rehearsal, "write_adapter", lambda *given: written.append(given[2]) or keep(*given))

    run, _ = trained(*LLAMA)

    assert written == [run.rehearsal] and not run.rehearsal.exists()
    assert run.read_manifest()["status"] == "finished"


def test_an_unchanged_adapter_is_refused_even_if_it_is_not_zero(trained):
    words = ["adapter.init_lora_weights=false", "training.learning_rate=1e-30", "quantization=null"]

    with pytest.raises(CheckpointError, match="training changed no tensor"):
        trained(*LLAMA, *words)
