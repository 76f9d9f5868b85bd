"""`eyas merge` writes a merged model that equals the trained model, or nothing."""

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
TRAINS_FAST = ("training.learning_rate=0.05", "training.max_steps=4")


def change_adapter(run, change):
    file = run.adapter / "adapter_model.safetensors"
    save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    seal_again(run.adapter)


def parities(run, dtype):
    figures = json.loads(run.parity.read_text())
    return figures["in float32"], figures["saved in float32" if dtype == "float32" else f"rounded to {dtype}"]


def refused(run, capsys, **options):
    with pytest.raises(SystemExit) as exit_of_merge:
        merge_verb(run.path, **options)
    assert exit_of_merge.value.code == 1
    assert not run.merged.exists() and not run.parity.exists()
    assert not run.merging.exists()
    return capsys.readouterr().err


@pytest.fixture
def falcon_run(trained):
    return trained("falcon7b_qlora", *TRAINS_FAST)[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_4bit_adapter_merges_into_its_dequantized_base(dtype, trained):
    run, _ = trained("falcon7b_qlora", *TRAINS_FAST, f"export.dtype={dtype}")

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
    """Return a run on a Falcon with large weights, which quantization changes visibly."""
    folder = stand_ins.falcon(tmp_path / "base", initializer_range=0.2)
    return trained("falcon7b_qlora", *TRAINS_FAST, f"model.name={folder}", "export.dtype=float32")[0]


def test_a_4bit_adapter_merged_into_the_published_base_is_refused(sensitive_run, capsys):
    message = refused(sensitive_run, capsys, onto_published=True)

    kl = float(message.partition("KL ")[2].split()[0])
    assert kl > 1e-3
    assert "in float32, the merged model is not what was trained" in message and "Nothing was written" in message


def test_a_refused_merge_still_writes_the_report(sensitive_run, capsys):
    message = refused(sensitive_run, capsys, onto_published=True, then_report=True)

    page = (sensitive_run.report / "report.md").read_text()
    assert "|  | base | tuned |" in page and "merged |" not in page
    assert "**No merged model was released.** in float32, the merged model is not what was trained" in page
    assert "is not the base that was trained on" in page and "Nothing was written" in message


def test_a_merge_with_another_error_writes_no_report(falcon_run, capsys):
    (falcon_run.adapter / SEAL).unlink()

    refused(falcon_run, capsys, then_report=True)

    assert not falcon_run.report.exists()


@pytest.mark.parametrize(
    ("dtype", "overrides", "saved"),
    [("float32", (), "F32"), ("bfloat16", (), "BF16"), ("float32", ("export.dtype=float16",), "F16")],
)
def test_the_merged_model_has_the_trained_dtype_unless_the_recipe_sets_another(dtype, overrides, saved, trained):
    run, recipe = trained("falcon7b_lora", *TRAINS_FAST, f"model.dtype={dtype}", *overrides)

    merge_verb(run.path)

    with safe_open(run.merged / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {saved}  # noqa: SIM118
    assert json.loads((run.merged / "config.json").read_text())["dtype"] == recipe.merged_dtype
    assert json.loads(run.parity.read_text())["dtype"] == recipe.merged_dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fully_fine_tuned_model_is_rounded_with_its_update(dtype, trained):
    run, _ = trained("distilbert_full_yelp", "training.learning_rate=1e-4", f"export.dtype={dtype}")

    merge_verb(run.path)

    figures = json.loads(run.parity.read_text())
    assert figures["weights"] is None and figures["the base"]["kl_per_token"] > 0
    assert figures["share_of_update_kept"] == pytest.approx(1, abs=0.1)
    if dtype == "float32":
        whole, written = (load_file(folder / "model.safetensors") for folder in (run.model, run.merged))
        assert all(torch.equal(written[name], tensor) for name, tensor in whole.items())


def test_the_leftover_of_a_killed_merge_is_removed(falcon_run):
    (falcon_run.merging / "merged").mkdir(parents=True)
    (falcon_run.merging / "merged" / "model-00002.safetensors").write_bytes(b"half")

    merge_verb(falcon_run.path)

    assert not falcon_run.merging.exists() and faults(falcon_run.merged) == []


def test_the_same_run_merges_into_its_own_base(sensitive_run):
    merge_verb(sensitive_run.path)

    assert max(parity["kl_per_token"] for parity in parities(sensitive_run, "float32")) <= 1e-6


def test_force_writes_a_refused_model_with_a_warning_on_its_model_card(sensitive_run):
    merge_verb(sensitive_run.path, onto_published=True, force=True)

    assert "Written with --force" in (sensitive_run.merged / "README.md").read_text()


def test_an_int8_adapter_merges_into_its_dequantized_base(trained):
    run, _ = trained(
        "falcon7b_qlora",
        *TRAINS_FAST,
        "quantization={load_in_8bit: true}",
        "model.dtype=float32",
        "training.max_steps=2",
    )

    merge_verb(run.path)

    assert json.loads(run.parity.read_text())["in float32"]["kl_per_token"] <= 1e-6


def test_a_classifier_keeps_its_trained_head(trained):
    run, _ = trained("minilm_lora_sentiment", *TRAINS_FAST)

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
def test_an_unsound_adapter_is_refused(change, message, falcon_run, capsys):
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


def test_a_base_that_changed_since_training_is_refused(trained, tmp_path, capsys, models):
    folder = shutil.copytree(models["falcon7b"], tmp_path / "base")
    run, _ = trained("falcon7b_qlora", *TRAINS_FAST, f"model.name={folder}")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.word_embeddings.weight"][0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    assert "is not the base that" in refused(run, capsys)


def test_a_pickled_adapter_is_not_opened(falcon_run, capsys):
    file = falcon_run.adapter / "adapter_model.safetensors"
    torch.save(load_file(file), falcon_run.adapter / "adapter_model.bin")
    file.unlink()
    seal_again(falcon_run.adapter)

    assert "holds no tensor" in refused(falcon_run, capsys)


def test_an_adapter_with_a_flipped_bit_is_refused_before_the_base_is_loaded(falcon_run, capsys, monkeypatch):
    monkeypatch.setattr("eyas.model.trained.load_base", lambda *_: pytest.fail("the base was loaded"))
    file = falcon_run.adapter / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    assert f"{file}: its bytes are not those that were saved" in refused(falcon_run, capsys)


def test_an_adapter_without_a_seal_is_refused(falcon_run, capsys):
    (falcon_run.adapter / SEAL).unlink()

    assert "adapter: has no MANIFEST.json" in refused(falcon_run, capsys)


def test_a_merged_model_is_sealed_with_its_parity(falcon_run):
    merge_verb(falcon_run.path)

    assert faults(falcon_run.merged) == []
    assert {"model.safetensors", "tokenizer.json", "README.md", "parity.json"} <= set(files_in(falcon_run.merged))
    assert read_seal(falcon_run.merged)["parity"] == json.loads(falcon_run.parity.read_text())


def test_a_merge_does_not_overwrite_another(falcon_run):
    merge_verb(falcon_run.path)

    with pytest.raises(SystemExit):
        merge_verb(falcon_run.path)
    assert falcon_run.merged.exists()


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        merge_verb(tmp_path)

    assert "no run here" in capsys.readouterr().err
