"""A merged model is what was trained, or it is not written."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import stand_ins
from conftest import TOLERANCE
from eyas.cli.merge import merge as merge_verb
from eyas.sealing import SEAL, faults, files_in, read_seal
from merges import seal_again

pytestmark = pytest.mark.slow
LEARNS = ("training.learning_rate=0.05", "training.max_steps=4")


def change_adapter(run, change):
    file = run.adapter / "adapter_model.safetensors"
    save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    seal_again(run.adapter)


def parities(run, dtype):
    found = json.loads(run.parity.read_text())
    return found["in float32"], found["saved in float32" if dtype == "float32" else f"rounded to {dtype}"]


def refused(run, capsys, **options):
    with pytest.raises(SystemExit) as left:
        merge_verb(run.path, **options)
    assert left.value.code == 1
    assert not run.merged.exists() and not run.parity.exists()
    assert not run.merging.exists()
    return capsys.readouterr().err


@pytest.fixture
def falcon_run(trained):
    return trained("falcon7b_qlora", *LEARNS)[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_4bit_adapter_merges_into_its_dequantized_base(dtype, trained):
    run, _ = trained("falcon7b_qlora", *LEARNS, f"export.dtype={dtype}")

    merge_verb(run.path)

    before, after = parities(run, dtype)
    assert before["kl_per_token"] <= 1e-6 and before["top1_agreement"] == 1.0
    most_kl, least_agreement = TOLERANCE[dtype]
    assert after["kl_per_token"] <= most_kl and after["top1_agreement"] >= least_agreement
    weights = load_file(run.merged / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {f"torch.{dtype}"}
    assert "quantization_config" not in json.loads((run.merged / "config.json").read_text())


@pytest.fixture
def sensitive_run(trained, tmp_path):
    """A Falcon whose layers matter, so that the weights they were quantized from are told from those they became."""
    folder = stand_ins.falcon(tmp_path / "base", initializer_range=0.2)
    return trained("falcon7b_qlora", *LEARNS, f"model.name={folder}", "export.dtype=float32")[0]


def test_merging_a_4bit_adapter_into_the_published_base_is_reported_and_refused(sensitive_run, capsys):
    message = refused(sensitive_run, capsys, onto_published=True)

    kl = float(message.partition("KL ")[2].split()[0])
    assert kl > 1e-3
    assert "in float32, the merged model is not what was trained" in message and "Nothing was written" in message


def test_a_refused_merge_does_not_take_the_report_with_it(sensitive_run, capsys):
    message = refused(sensitive_run, capsys, onto_published=True, then_report=True)

    page = (sensitive_run.report / "report.md").read_text()
    assert "|  | base | tuned |" in page and "merged |" not in page
    assert "**No merged model was released.** in float32, the merged model is not what was trained" in page
    assert "is not the base that was trained on" in page and "Nothing was written" in message


def test_a_merge_that_failed_otherwise_writes_no_report(falcon_run, capsys):
    (falcon_run.adapter / SEAL).unlink()

    refused(falcon_run, capsys, then_report=True)

    assert not falcon_run.report.exists()


@pytest.mark.parametrize(
    ("dtype", "asked", "saved"),
    [("float32", (), "F32"), ("bfloat16", (), "BF16"), ("float32", ("export.dtype=float16",), "F16")],
)
def test_the_merged_model_is_in_the_dtype_that_was_trained_in_unless_another_is_asked_for(dtype, asked, saved, trained):
    run, recipe = trained("falcon7b_lora", *LEARNS, f"model.dtype={dtype}", *asked)

    merge_verb(run.path)

    with safe_open(run.merged / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {saved}  # noqa: SIM118
    assert json.loads((run.merged / "config.json").read_text())["dtype"] == recipe.merged_dtype
    assert json.loads(run.parity.read_text())["dtype"] == recipe.merged_dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_was_trained_whole_is_rounded_with_its_update(dtype, trained):
    run, _ = trained("distilbert_full_yelp", "training.learning_rate=1e-4", f"export.dtype={dtype}")

    merge_verb(run.path)

    found = json.loads(run.parity.read_text())
    assert found["weights"] is None and found["the base"]["kl_per_token"] > 0
    assert found["share_of_update_kept"] == pytest.approx(1, abs=0.1)
    if dtype == "float32":
        whole, written = (load_file(folder / "model.safetensors") for folder in (run.model, run.merged))
        assert all(torch.equal(written[name], tensor) for name, tensor in whole.items())


def test_what_a_killed_merge_left_is_no_part_of_the_next_and_goes(falcon_run):
    (falcon_run.merging / "merged").mkdir(parents=True)
    (falcon_run.merging / "merged" / "model-00002.safetensors").write_bytes(b"half")

    merge_verb(falcon_run.path)

    assert not falcon_run.merging.exists() and faults(falcon_run.merged) == []


def test_the_same_run_merges_into_the_base_it_was_trained_on(sensitive_run):
    merge_verb(sensitive_run.path)

    assert max(parity["kl_per_token"] for parity in parities(sensitive_run, "float32")) <= 1e-6


def test_force_writes_what_is_refused_and_says_so_on_its_card(sensitive_run):
    merge_verb(sensitive_run.path, onto_published=True, force=True)

    assert "Written with --force" in (sensitive_run.merged / "README.md").read_text()


def test_an_int8_adapter_merges_into_its_dequantized_base(trained):
    run, _ = trained(
        "falcon7b_qlora", *LEARNS, "quantization={load_in_8bit: true}", "model.dtype=float32", "training.max_steps=2"
    )

    merge_verb(run.path)

    assert json.loads(run.parity.read_text())["in float32"]["kl_per_token"] <= 1e-6


def test_a_classifier_keeps_its_trained_head(trained):
    run, _ = trained("minilm_lora_sentiment", *LEARNS)

    merge_verb(run.path)

    trained_head = load_file(run.adapter / "adapter_model.safetensors")["base_model.model.classifier.weight"]
    merged_head = load_file(run.merged / "model.safetensors")["classifier.weight"]
    assert torch.allclose(trained_head, merged_head.float(), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, t: torch.zeros_like(t), "identical to the base model"),
        (lambda name, t: t * torch.nan, "NaN or Inf"),
        (lambda name, t: t[:8] if "lora_A" in name else t[:, :8].contiguous(), "does not fit this base"),
    ],
    ids=["zero", "nan", "wrong rank"],
)
def test_an_adapter_that_cannot_be_what_was_trained_is_refused_by_name(change, message, falcon_run, capsys):
    change_adapter(falcon_run, change)

    assert message in refused(falcon_run, capsys)


def test_half_an_adapter_is_refused(falcon_run, capsys):
    file = falcon_run.adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensors[name] for name in sorted(tensors)[: len(tensors) // 2]}, file)
    seal_again(falcon_run.adapter)

    assert "lacks ['base_model" in refused(falcon_run, capsys)


def test_an_empty_adapter_is_refused(falcon_run, capsys):
    save_file({}, falcon_run.adapter / "adapter_model.safetensors")
    seal_again(falcon_run.adapter)

    assert "holds no tensor" in refused(falcon_run, capsys)


def test_another_base_than_the_one_trained_on_is_refused(trained, tmp_path, capsys, models):
    folder = shutil.copytree(models["falcon7b"], tmp_path / "base")
    run, _ = trained("falcon7b_qlora", *LEARNS, f"model.name={folder}")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.word_embeddings.weight"][0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    assert "is not the base that" in refused(run, capsys)


def test_a_pickle_in_place_of_an_adapter_is_not_opened(falcon_run, capsys):
    file = falcon_run.adapter / "adapter_model.safetensors"
    torch.save(load_file(file), falcon_run.adapter / "adapter_model.bin")
    file.unlink()
    seal_again(falcon_run.adapter)

    assert "holds no tensor" in refused(falcon_run, capsys)


def test_an_adapter_of_which_one_bit_has_changed_is_refused_before_the_base_is_loaded(falcon_run, capsys, monkeypatch):
    monkeypatch.setattr("eyas.model.trained.load_base", lambda *_: pytest.fail("the base was loaded"))
    file = falcon_run.adapter / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    assert f"{file}: its bytes are not those that were saved" in refused(falcon_run, capsys)


def test_an_adapter_that_no_finished_run_has_sealed_is_refused(falcon_run, capsys):
    (falcon_run.adapter / SEAL).unlink()

    assert "adapter: has no MANIFEST.json" in refused(falcon_run, capsys)


def test_a_merged_model_is_sealed_with_its_distance_from_what_was_trained(falcon_run):
    merge_verb(falcon_run.path)

    assert faults(falcon_run.merged) == []
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= set(files_in(falcon_run.merged))
    assert read_seal(falcon_run.merged)["parity"] == json.loads(falcon_run.parity.read_text())


def test_a_merge_does_not_write_over_another(falcon_run):
    merge_verb(falcon_run.path)

    with pytest.raises(SystemExit):
        merge_verb(falcon_run.path)
    assert falcon_run.merged.exists()


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        merge_verb(tmp_path)

    assert "no run here" in capsys.readouterr().err
