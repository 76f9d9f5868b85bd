"""The release protocol, on the merged model and on an artifact of another format."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import merges
from eyas.errors import ExportError
from eyas.export import artifacts
from eyas.export.artifact import FEW, Artifact, release
from eyas.export.merged_model import MERGED, MergedModel
from eyas.export.parity import as_probe, parity_between, predictions
from eyas.export.proof import Evidence, recorded_parity
from eyas.export.recording import Recording, Written
from eyas.export.reference import FinishedRun, record_reference
from eyas.export.refusals import ArtifactRefused
from eyas.export.rounding import Rounder
from eyas.model.trained import load_unsealed
from eyas.model.trained import merged as merged_into_base
from eyas.sealing import SEAL, faults, files_in, read_seal


def write_int8(source, probes, folder):
    """Write weights as 8-bit integers, each row with its own scale: other tensors than the model's."""
    model, stored = source.model, {}
    for name, tensor in model.state_dict().items():
        scale = tensor.abs().amax(-1, keepdim=True).clamp(1e-9) / 127
        stored |= {f"{name}.int8": (tensor / scale).round().to(torch.int8), f"{name}.scale": scale}
        tensor.copy_(stored[f"{name}.int8"] * scale)
    model.config.save_pretrained(folder)
    save_file(stored, folder / "int8.safetensors")
    return Written(predictions(model, probes), {}, "float32")


def load_int8(folder, auto_model):
    """Open the 8-bit format in float32."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, auto_model).from_config(config).float().eval()
    stored = load_file(folder / "int8.safetensors")
    names = {name.removesuffix(".int8") for name in stored if name.endswith(".int8")}
    model.load_state_dict({name: stored[f"{name}.int8"] * stored[f"{name}.scale"] for name in names})
    return model


INT8 = Artifact("export/int8", write_int8, load_int8)


@pytest.fixture
def finished(tmp_path):
    run, recipe = merges.finished_run(tmp_path, dtype="float32")
    return FinishedRun(run, recipe, "AutoModelForCausalLM", None, merges.TOKENIZER)


@pytest.fixture
def recorded(finished):
    """Return the reference of a run, and its merged model as a source."""
    probes = [as_probe(row) for row in merges.random_rows(8)]
    rounder = Rounder("float32", None, seed=0)
    reference, trained = record_reference(finished, probes, rounder)
    model = merged_into_base(trained.model)
    in_float32 = parity_between(reference.tuned, predictions(model, probes))
    evidence = Evidence("float32", in_float32, in_float32, [], None)
    return reference, MergedModel(model, merges.TOKENIZER, rounder, evidence)


@pytest.fixture
def int8(monkeypatch):
    monkeypatch.setitem(artifacts.ARTIFACTS, INT8.name, INT8)
    return INT8


def test_a_new_format_needs_only_an_instance_of_the_artifact(int8, finished, recorded):
    reference, source = recorded

    proof = release(int8, source, finished, reference, merges.SameProcess())

    folder = finished.directory.path / "export" / "int8"
    assert set(files_in(folder)) == {"config.json", "int8.safetensors", "README.md", "parity.json"}
    assert faults(folder) == [] and read_seal(folder)["kind"] == "int8"
    assert read_seal(folder)["parity"] == json.loads((folder / "parity.json").read_text()) == proof.as_dict()
    assert 0 < proof.rounded.kl_per_token < proof.base.kl_per_token / 4
    assert not finished.directory.merging.exists() and not finished.directory.merged.exists()


def test_a_format_that_computes_another_function_is_refused_and_leaves_nothing(int8, finished, recorded):
    reference, source = recorded
    reader = merges.SameProcess(lambda folder: merges.change_json(folder / "config.json", rms_norm_eps=1e-2))

    with pytest.raises(ArtifactRefused, match="reopened, the int8 model is not what was trained: KL"):
        release(int8, source, finished, reference, reader)

    assert not (finished.directory.path / "export").exists() and not finished.directory.merging.exists()


def test_a_format_that_loses_the_update_is_refused(int8, finished, recorded):
    reference, source = recorded
    base = load_unsealed(finished.recipe.model.name, finished.auto_model, torch.float32)
    source.model.load_state_dict(base.state_dict())

    with pytest.raises(ArtifactRefused, match="the int8 model has lost what was trained"):
        release(int8, source, finished, reference, merges.SameProcess())


def test_an_artifact_is_not_overwritten(int8, finished, recorded):
    reference, source = recorded
    finished.directory.artifact(int8.name).mkdir(parents=True)

    with pytest.raises(ExportError, match="export/int8: exists already"):
        release(int8, source, finished, reference, merges.SameProcess())


def test_the_seal_holds_the_bytes_that_were_written_before_the_comparison(finished):
    """A file that changes later, even within the comparison, is a fault of the sealed folder."""
    reader = merges.SameProcess(lambda folder: merges.change_json(folder / "generation_config.json", top_k=7))

    merges.merged(finished.directory, finished.recipe, reader=reader)

    changed = finished.directory.merged / "generation_config.json"
    assert [fault.partition(": ")[0] for fault in faults(finished.directory.merged)] == [str(changed)]


def test_the_weights_are_dropped_before_the_fresh_process_needs_the_memory(finished, recorded):
    reference, source = recorded
    reader = merges.SameProcess(lambda _folder: weights.extend(source.model.parameters()))
    weights = []

    release(MERGED, source, finished, reference, reader)

    assert len(weights) > 10 and all(weight.is_meta for weight in weights)


def test_a_recording_is_read_as_it_was_saved(tmp_path):
    probes = merges.random_rows(3)
    tuned = [torch.randn(probe["input_ids"].shape[1], 7) for probe in probes]
    written = Written([logits + 1 for logits in tuned[:2]], {"w": "00ff"}, "bfloat16")

    Recording(probes, tuned, written).save(tmp_path / "recorded")
    read = Recording.load(tmp_path / "recorded")

    assert all(torch.equal(read.probes[i][name], probe[name]) for i, probe in enumerate(probes) for name in probe)
    assert all(map(torch.equal, read.tuned, tuned)) and len(read.tuned) == 3
    assert all(map(torch.equal, read.written.predictions, written.predictions)) and len(read.written.predictions) == 2
    assert (read.written.digests, read.written.dtype) == ({"w": "00ff"}, "bfloat16")


def test_the_reference_holds_the_effect_of_training_and_of_float32(recorded):
    reference, source = recorded

    assert reference.noise.positions == sum(len(logits) for logits in reference.tuned[:FEW])
    assert 0 < reference.noise.kl_per_token < 1e-9 < reference.base.kl_per_token
    assert source.evidence.in_float32.kl_per_token < 16 * reference.noise.kl_per_token


def test_the_parity_of_a_run_of_an_earlier_version_is_read(finished):
    run = finished.directory
    proof = merges.merged(run, finished.recipe)
    assert recorded_parity(run) == proof.as_dict()

    run.parity.rename(run.parity_of_earlier_versions)  # as eyas wrote it until now
    merges.seal_again(run.merged, "merged")
    assert recorded_parity(run) == proof.as_dict() and SEAL in {file.name for file in run.merged.iterdir()}

    run.merged.rename(run.path / "elsewhere")
    assert recorded_parity(run) is None
    merges.merged(run, finished.recipe)
    assert not run.parity_of_earlier_versions.exists()
