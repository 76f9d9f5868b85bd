"""Code that a recipe, a base or a run folder names: none runs unless the recipe pins it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import merges
import stand_ins
from eyas.errors import CheckpointError, PreflightError, RecipeError
from eyas.hub.local_code import digest_of_code
from eyas.inference.load import load
from eyas.model.base_identity import base_identity
from eyas.model.load import empty_model, load_config, load_model
from eyas.model.tokenizer import load_tokenizer
from eyas.model.trained import load_saved, load_tuned
from eyas.preflight.checks import check
from eyas.recipe import load_recipe
from eyas.recipe.model import Model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
open({marker!r}, "w").close()
class Config(LlamaConfig):
    model_type = "foreign"
class Net(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def marker(tmp_path):
    """Return the file that any foreign code writes."""
    return tmp_path / "ran"


@pytest.fixture
def base(tmp_path, marker):
    """Return a model folder that has Python code of its own."""
    folder = stand_ins.llama(tmp_path / "base")
    (folder / "foreign.py").write_text(CODE.format(marker=str(marker)))
    return folder


def opened(model):
    """Open tokenizer, config and weights of a base as every verb does."""
    load_tokenizer(model)
    config = load_config(model)
    empty_model(config, "AutoModelForCausalLM", model.trust_remote_code)
    return load_model(model, None, config, "AutoModelForCausalLM")[0]


def of_another_type(folder, classes=("Config", "Net"), prefix="foreign."):
    names = dict(zip(("AutoConfig", "AutoModelForCausalLM"), classes, strict=True))
    auto_map = {auto: prefix + name for auto, name in names.items()}
    merges.change_json(folder / "config.json", model_type="foreign", auto_map=auto_map)


def with_a_foreign_tokenizer(folder):
    auto_map = {"AutoTokenizer": [None, "foreign.Tokenizer"]}
    merges.change_json(folder / "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map=auto_map)


@pytest.mark.parametrize("plant", [of_another_type, with_a_foreign_tokenizer], ids=lambda plant: plant.__name__)
def test_code_of_a_base_does_not_run_untrusted_and_nobody_is_asked(plant, base, marker, monkeypatch):
    plant(base)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))

    try:
        opened(Model(name=str(base), dtype="float32"))
    except PreflightError as refusal:
        assert "cannot be loaded" in str(refusal) or "neither a folder" in str(refusal)

    assert not marker.exists()


@pytest.mark.parametrize("revision", [None, COMMIT, "main"])
@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_code_of_a_local_folder_runs_under_no_revision_but_only_under_its_digest(revision, digest, base, marker):
    of_another_type(base)
    model = Model(
        name=str(base), dtype="float32", trust_remote_code=True, revision=revision, code_sha256=digest
    )  # fmt: skip

    with pytest.raises(PreflightError, match=f"has the digest {digest_of_code(base)}"):
        opened(model)
    assert not marker.exists()

    opened(model.model_copy(update={"code_sha256": digest_of_code(base)}))
    assert marker.exists(), "this digest pins the code"


def change_the_code(folder):
    (folder / "foreign.py").open("a").write("# changed\n")


def add_a_file(folder):
    (folder / "more.py").write_text("x = 1\n")


def add_a_folder(folder):
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").touch()


def rename_a_file(folder):
    (folder / "foreign.py").rename(folder / "other.py")


@pytest.mark.parametrize(
    "change", [change_the_code, add_a_file, add_a_folder, rename_a_file], ids=lambda change: change.__name__
)
def test_changed_code_has_another_digest(change, base):
    before = digest_of_code(base)
    (base / "notes.txt").write_text("not code")
    assert digest_of_code(base) == before

    change(base)

    assert digest_of_code(base) != before


def test_a_linked_folder_of_code_is_refused(base, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (base / "custom_generate").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PreflightError, match="custom_generate: is a link to a folder; copy the code"):
        digest_of_code(base)


@pytest.mark.parametrize("prefix", ["owner/name--foreign.", "../foreign.", "/../foreign.", "/tmp/foreign."])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_trusted_code_is_never_that_of_another_repository_or_folder(prefix, file, base, marker):
    (base.parent / "foreign.py").write_text(CODE.format(marker=str(marker)))
    (base / file).touch()
    (base / file).write_text(json.dumps({"auto_map": {"AutoConfig": f"{prefix}Config"}}))
    trusted = Model(name=str(base), trust_remote_code=True, code_sha256=digest_of_code(base))

    with pytest.raises(PreflightError, match=rf"{file}: auto_map.AutoConfig: .* which nothing pins"):
        opened(trusted)
    assert not marker.exists()


KERNELS = {
    "attn_implementation": "owner/flash-attention",
    "_attn_implementation": "kernels-community/flash-attn2",
    "experts_implementation": "owner/experts:forward",
    "text_config": {"attn_implementation": "owner/flash-attention@main"},
}


@pytest.mark.parametrize("key", KERNELS)
def test_a_base_cannot_name_compiled_code_of_the_hub(key, base):
    merges.change_json(base / "config.json", **{key: KERNELS[key]})

    with pytest.raises(PreflightError, match="is compiled code from the hub, which eyas never runs"):
        opened(Model(name=str(base)))


@pytest.mark.parametrize(
    ("setting", "refusal"),
    [
        ("model.attn_implementation=kernels-community/flash-attn2", "model.attn_implementation: is compiled code"),
        ("model.attn_implementation=owner/kernel@main:forward", "model.attn_implementation: is compiled code"),
        ("adapter.megatron_core=json", "adapter.megatron_core: not set in a recipe"),
        ("adapter.megatron_config={}", "adapter.megatron_config: not set in a recipe"),
        ("adapter.auto_mapping={parent_library: os}", "adapter.auto_mapping: not set in a recipe"),
        ("adapter={method: prompt_tuning, tokenizer_kwargs: {trust_remote_code: true}}", "not set in a recipe"),
        (
            "adapter={method: ia3, target_modules: [a], feedforward_modules: [], megatron_core: os}",
            "does not train with Megatron",
        ),
        ("training.trust_remote_code=true", "training.trust_remote_code: not set in a recipe"),
        ("training.model_init_kwargs={trust_remote_code: true}", "training.model_init_kwargs: not set in a recipe"),
        ("megatron_core=os", "does not train with Megatron"),
        ("data.trust_remote_code=true", "data.trust_remote_code: unknown key"),
        ("evaluation.custom_generate=owner/name", "evaluation.custom_generate: unknown key"),
        (f"model.code_sha256='{'0' * 64}'", "model.code_sha256: has an effect only on a local folder"),
    ],
)
def test_a_recipe_has_no_key_that_imports_code(setting, refusal, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("task: sft\nmodel: {name: owner/name}\nadapter: {method: lora}\ndata: {train: {path: a.jsonl}}\n")

    with pytest.raises(RecipeError, match=refusal):
        load_recipe(file, [setting])


def test_check_prints_the_digest_of_local_code(base, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"task: sft\nmodel: {{name: {base}, trust_remote_code: true}}\ndata: {{train: {{path: {base}}}}}\n")
    digest = digest_of_code(base)

    found = [str(finding) for finding in check(load_recipe(file)) if "code_sha256" in finding.where]
    pinned = check(load_recipe(file, [f"model.code_sha256='{digest}'"]))

    assert (
        len(found) == 1 and found[0].startswith("refused: ") and found[0].endswith(f"set model.code_sha256: {digest}")
    )
    assert not [finding for finding in pinned if "code_sha256" in finding.where]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return merges.finished_run(tmp_path_factory.mktemp("foreign"), dtype="float32", export={"dtype": "float32"})


@pytest.mark.parametrize(
    "setting",
    [
        {"megatron_config": {"hidden_size": 1}, "megatron_core": "foreign"},
        {"megatron_config": {"hidden_size": 1}},
        {"auto_mapping": {"base_model_class": "A", "parent_library": "foreign"}},
        {"tokenizer_name_or_path": "foreign"},
        {"tokenizer_kwargs": {"trust_remote_code": True}},
    ],
    ids=lambda setting: "+".join(setting),
)
def test_an_adapter_that_imports_code_is_refused(setting, finished, monkeypatch, tmp_path):
    run, recipe = finished
    (tmp_path / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    written = (run.adapter / "adapter_config.json").read_text()
    merges.change_json(run.adapter / "adapter_config.json", **setting)
    merges.seal_again(run.adapter)

    with pytest.raises(CheckpointError, match=f"{next(iter(setting))}: .* makes peft import code"):
        load_tuned(recipe, "AutoModelForCausalLM", None, torch.float32, run.adapter)

    assert not (tmp_path / "ran").exists()
    (run.adapter / "adapter_config.json").write_text(written)
    merges.seal_again(run.adapter)


@pytest.mark.parametrize("plant", ["of another type", "a kernel", "outside weights"])
def test_a_merged_model_of_somebody_else_runs_no_code(plant, base, marker, monkeypatch, tmp_path):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    if plant == "of another type":
        of_another_type(base)
    elif plant == "a kernel":
        merges.change_json(base / "config.json", attn_implementation="owner/kernel")
    else:
        merges.change_json(base / "config.json", transformers_weights="../outside.safetensors")
    merges.seal_again(base, "merged")

    with pytest.raises((CheckpointError, PreflightError), match=str(base)):
        load_saved(base, "AutoModelForCausalLM", torch.float32)
    assert not marker.exists()


def sharded(base, name):
    """Write a base's weights as a shard of this name, relative to its folder."""
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    save_file(weights, base / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))


OUTSIDE = ["../outside.safetensors", "{parent}/outside.safetensors", "below/inside.safetensors", "./model.safetensors"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_weights_outside_the_folder_are_never_read(name, base):
    (base / "below").mkdir()
    sharded(base, name.format(parent=base.parent))
    model = Model(name=str(base))

    with pytest.raises(PreflightError, match=r"index.json: weight_map\..* is outside the model's folder"):
        opened(model)


def test_shards_within_the_folder_are_read_and_are_part_of_the_identity(base):
    sharded(base, "model-00001-of-00001.safetensors")
    model = Model(name=str(base), dtype="float32")
    before = base_identity(model)

    assert opened(model).num_parameters() > 1000
    shard = base / "model-00001-of-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert base_identity(model).weights != before.weights


def test_a_merged_run_still_opens(finished):
    run, recipe = finished
    merges.merged(run, recipe)

    assert load(run, recipe, "AutoModelForCausalLM", None, "merged").num_parameters() > 1000
