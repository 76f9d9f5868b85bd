"""What a model was shown to do is not asked again, and is asked again as soon as anything could change the answer."""

import json
import os
import shutil

import pytest
import torch

from eyas.model.base_identity import BaseIdentity
from eyas.sealing import SEAL
from eyas.tasks import verdicts
from eyas.training import run as line

PROBES = {
    "eyas.model.lora_probe": "probe_lora",
    "eyas.model.compact.probe": "probe_compact",
    "eyas.model.activations": "kept_bytes_per_token",
}


@pytest.fixture
def start(trained, tmp_path, monkeypatch, capsys):
    """Trains one step; returns which probes asked the model, what was said of each lever, and the losses."""
    asked = []
    for module, name in PROBES.items():
        there = __import__(module, fromlist=[name])
        whole = getattr(there, name)
        monkeypatch.setattr(there, name, lambda *given, name=name, whole=whole: (asked.append(name), whole(*given))[1])
    count = iter(range(9))

    def again(*words, recipe="smollm2_qlora_quickstart"):
        asked.clear()
        folder = tmp_path / f"run{next(count)}"
        words = ["training.max_steps=1", f"data.cache_directory={tmp_path / 'kept'}", f"run_directory={folder}", *words]
        directory, _ = trained(recipe, *words)
        said = capsys.readouterr().out.split("speed:\n")[1].splitlines()[1:4]  # the first tells how much memory is free
        losses = [json.loads(text).get("loss") for text in directory.metrics.read_text().splitlines()]
        return sorted(asked), said, losses

    return again


def kept_folder(tmp_path):
    (folder,) = (tmp_path / "kept" / "verdicts").iterdir()
    return folder


def test_the_next_start_asks_nothing_and_does_the_same(start, tmp_path, caplog):
    caplog.set_level("INFO")
    first = start()
    assert first[0] == sorted(PROBES.values()) and "shown to do" not in caplog.text

    second = start()

    assert second[0] == []
    assert second[1:] == first[1:]
    assert f"what the model was shown to do: read again from {kept_folder(tmp_path)}" in caplog.text


def test_a_classifier_is_not_asked_again_either(start):
    assert start(recipe="minilm_lora_sentiment")[0] == ["kept_bytes_per_token", "probe_lora"]  # its own is an encoder's

    assert start(recipe="minilm_lora_sentiment")[0] == []


@pytest.mark.parametrize(
    "words",
    [
        ["adapter.r=4"], ["adapter.use_rslora=true"], ["training.seed=7"], ["model.dtype=bfloat16"],
        ["quantization=null"], ["speed.dequantized_gib=0"], ["training.bf16=true"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_what_the_recipe_says_of_the_model_is_asked_anew(words, start):
    start()

    assert "probe_lora" in start(*words)[0]


def test_a_base_of_other_bytes_is_asked_anew(start, models, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(models["smollm2"], other)
    start(f"model.name={other}")
    with (other / "config.json").open("a") as file:
        file.write("\n")

    assert len(start(f"model.name={other}")[0]) == 3


def of_another_version(monkeypatch):
    monkeypatch.setattr(verdicts, "installed_versions", lambda: {"torch": "9.9"})


def of_other_code(monkeypatch):
    monkeypatch.setattr(verdicts, "digest_of_files", lambda _: "another")


def of_other_kernels(monkeypatch):
    monkeypatch.setitem(os.environ, "ONEDNN_MAX_CPU_ISA", "AVX2")


def of_other_instructions(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})


@pytest.mark.parametrize("change", [of_another_version, of_other_code, of_other_kernels, of_other_instructions])
def test_other_code_or_another_machine_is_asked_anew(change, start, monkeypatch):
    start()
    change(monkeypatch)

    assert len(start()[0]) == 3


DAMAGES = {
    "cut": lambda text: text[:-40],
    "another key": lambda text: text.replace('"seed": 42', '"seed": 43'),
    "another answer": lambda text: text.replace('"attention"', '"mask"'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_what_was_written_is_asked_anew(damage, start, tmp_path, caplog):
    start()
    folder = kept_folder(tmp_path)
    file = folder / SEAL
    whole = file.read_text()
    assert damage(whole) != whole
    file.write_text(damage(whole))

    assert len(start()[0]) == 3
    assert f"{folder} is not what was written; asking the model again" in caplog.text
    assert file.read_text() == whole


def test_nothing_is_kept_of_a_base_that_nothing_pins(start, tmp_path, monkeypatch):
    monkeypatch.setattr(line, "base_identity", lambda *_: BaseIdentity("commit:main", "sha256:0"))
    start()

    assert not (tmp_path / "kept" / "verdicts").exists()
    assert len(start()[0]) == 3


def test_a_full_disk_does_not_stop_the_training(start, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verdicts, "seal", full)
    start()

    assert "cannot be written: No space left on device; the next start asks the model again" in caplog.text
