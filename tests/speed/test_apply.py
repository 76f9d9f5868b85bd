"""Each optimization keeps losses and updates, alone and with all others."""

import json
import re
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

import families
import stand_ins
from conftest import ROOT
from eyas.errors import PreflightError
from eyas.model.probes.difference import Difference
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.speed import dropout
from eyas.training.run import train

pytestmark = pytest.mark.slow

SFT, CLASSES = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", ROOT / "recipes" / "minilm_lora_sentiment.yaml"
OFF = {"compact_batches": False, "fused_lora": False, "dequantized_gib": 0}
ALONE = {
    "fused LoRA": OFF | {"fused_lora": True},
    "compact batches": OFF | {"compact_batches": True, "shared_beginnings": False},
    "shared beginnings": OFF | {"compact_batches": True, "shared_beginnings": True},
    "dequantized weights": OFF | {"dequantized_gib": 1},
}
ALL = {"compact_batches": True, "shared_beginnings": True, "fused_lora": True}
FAMILIES = ["llama", "falcon 7b", "falcon 40b", "gpt2", "qwen3", "gemma", "phi", "mistral"]
SHORT = [("llama", "all")]
PLAIN_STEPS = [
    "training.optim=sgd", "training.max_grad_norm=0", "training.lr_scheduler_type=constant", "training.warmup_steps=0",
    "training.learning_rate=0.1", "training.max_steps=3", "training.logging_steps=1", "training.global_batch_size=8",
    "training.per_device_train_batch_size=4", "model.dtype=float32",
    "training.activation_checkpointing=false",
    "training.eval_steps=3",
]  # fmt: skip
"""Settings by which weights move by the sum of the gradients of two micro-batches a step."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Return a file of chats with two instructions; `held_out.jsonl` has six more."""
    folder = tmp_path_factory.mktemp("rows")
    for file, numbers in ((folder / "rows.jsonl", range(24)), (folder / "held_out.jsonl", range(24, 30))):
        write_rows(file, numbers)
    return folder / "rows.jsonl"


def write_rows(file, numbers):
    with file.open("w") as stream:
        for row in numbers:
            instruction = "answer in a few words of a green hill" if row % 3 else "we saw the falcon"
            turns = [("system", instruction), ("user", f"row {row} {'over the hill ' * (row % 5)}")]
            turns.append(("assistant", " ".join(stand_ins.WORDS[: 1 + row * 7 % 20])))
            messages = [{"role": role, "content": content} for role, content in turns]
            stream.write(json.dumps({"messages": messages}) + "\n")


@pytest.fixture(scope="module")
def family_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")

    def make(family):
        if not (folder / family).exists():
            vocabulary = {"vocab_size": 400, "pad_token_id": None}
            attention = families.FAMILIES[family][2][0]
            families.make(family, attention, **vocabulary).save_pretrained(folder / family)
            stand_ins.tokenizer(folder / family, chat=True)
        return folder / family

    return make


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Return a function that trains a recipe: losses, updates and optimizations. The same one is trained once."""

    @cache
    def trained(recipe_file, words, speed, rate):
        directory = RunDirectory(tmp_path_factory.mktemp("outcome") / "run")
        settings = [f"speed.{name}={json.dumps(value)}" for name, value in speed]
        more = [f"training.learning_rate={rate}", f"run_directory={directory.path}"]
        train(load_recipe(recipe_file, [*words, *settings, *more]), directory)
        (weights,) = [*directory.adapter.glob("*.safetensors"), *directory.path.glob("model/*.safetensors")]
        return directory, load_file(weights)

    def run(recipe_file, words, speed):
        directory, moved = trained(recipe_file, tuple(words), tuple(speed.items()), 0.1)
        _, still = trained(recipe_file, tuple(words), (("compact_batches", False), ("fused_lora", False)), 1e-30)
        lines = map(json.loads, directory.metrics.read_text().splitlines())
        losses = [line[name] for line in lines for name in ("loss", "eval_loss") if name in line]
        optimizations = directory.read_manifest()["speed"]
        del optimizations["allocator"]  # it belongs to the process, not to the recipe
        return losses, torch.cat([(moved[name] - still[name]).flatten() for name in sorted(still)]), optimizations

    return run


def assert_the_same_training(one, other):
    assert len(one[0]) == 4  # three steps and an evaluation
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert float(torch.nn.functional.cosine_similarity(one[1].double(), other[1].double(), dim=0)) > 0.999999
    assert float(one[1].norm() / other[1].norm()) == pytest.approx(1, abs=1e-5)


def words_for(family, rows, family_folder, tmp_path):
    method = ["adapter=null"] if family == "gpt2" else ["adapter.target_modules=all-linear", "adapter.lora_dropout=0"]
    still = ["model.dtype=float32", f"data.train={{path: {rows}}}", "evaluation.json_fields=[]",
             f"data.evaluation={{path: {rows.with_name('held_out.jsonl')}}}"]  # fmt: skip
    return [*PLAIN_STEPS, *still, *method, "quantization=null", f"model.name={family_folder(family)}",
            f"data.cache_directory={tmp_path.parent / 'prepared'}"]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "optimization"),
    [
        pytest.param(family, optimization, marks=[] if (family, optimization) in SHORT else pytest.mark.slow)
        for family in FAMILIES
        for optimization in ("fused LoRA", "compact batches", "shared beginnings", "all")
        if (family, optimization) != ("gpt2", "fused LoRA")  # it trains in full
    ],
)
def test_optimization_changes_no_number(family, optimization, rows, family_folder, outcome, tmp_path):
    words = words_for(family, rows, family_folder, tmp_path)
    speed = ALL if optimization == "all" else ALONE[optimization]
    speed = {name: value for name, value in speed.items() if name != "dequantized_gib"}
    if family == "gpt2":  # it trains in full, and has dropout by default
        speed = {name: value for name, value in speed.items() if name != "fused_lora"}
        config = family_folder(family) / "config.json"
        still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config.write_text(json.dumps(json.loads(config.read_text()) | still))
    plain = outcome(SFT, words, {name: False for name in speed if name != "shared_beginnings"})

    found = outcome(SFT, words, speed)

    assert not any(plain[2].values()) and found[2] == {**found[2], **{n: bool(v) for n, v in speed.items()}}
    assert_the_same_training(found, plain)


@pytest.mark.slow
@pytest.mark.parametrize("flat", ["packing", "padding_free"])
@pytest.mark.parametrize("family", ["llama", "falcon 7b"])
def test_all_optimizations_change_no_number_of_flat_batches(family, flat, rows, family_folder, outcome, tmp_path):
    words = [*words_for(family, rows, family_folder, tmp_path), f"training.{flat}=true", "training.max_length=160",
             "training.global_batch_size=2", "training.per_device_train_batch_size=1"]  # fmt: skip
    plain = outcome(SFT, words, {"compact_batches": False, "fused_lora": False})

    found = outcome(SFT, words, ALL)

    assert found[2] == dict.fromkeys(found[2], True) and not any(plain[2].values())
    assert_the_same_training(found, plain)


@pytest.mark.slow
@pytest.mark.parametrize("optimization", ["dequantized weights", "all"])
def test_optimization_changes_no_number_on_4_bit_weights(optimization, rows, models, outcome, tmp_path):
    words = [*words_for("llama", rows, lambda _: models["smollm2"], tmp_path)]
    words = [word for word in words if word != "quantization=null"] + ["quantization.bnb_4bit_compute_dtype=float32"]
    plain = outcome(SFT, words, OFF)

    found = outcome(SFT, words, ALL | {"dequantized_gib": 1} if optimization == "all" else ALONE[optimization])

    assert found[2]["dequantized_gib"] and not any(plain[2].values())
    assert_the_same_training(found, plain)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_copies_of_4_bit_weights_change_no_bit(dtype, rows, models, outcome, tmp_path):
    """Their number depends on the free memory, which may differ in a resumed run."""
    words = words_for("llama", rows, lambda _: models["smollm2"], tmp_path)
    words = [word for word in words if word != "quantization=null"]
    words += [f"model.dtype={dtype}", "adapter.target_modules=[q_proj, v_proj]"]

    with_them, without = (outcome(SFT, words, ALL | {"dequantized_gib": gib}) for gib in (1, 0))

    assert with_them[2]["dequantized_gib"] and not without[2]["dequantized_gib"]
    assert with_them[0] == without[0] and torch.equal(with_them[1], without[1])


@pytest.mark.parametrize("name", ["minilm_lora_sentiment", "distilbert_lora_yelp"])
def test_classifier_in_bfloat16_trains_with_every_optimization(name, overrides_for, tmp_path):
    """Its head is in float32, because it trains in full."""
    recipe, directory = ROOT / "recipes" / f"{name}.yaml", RunDirectory(tmp_path / "run")
    words = [*overrides_for(recipe), *PLAIN_STEPS, "model.dtype=bfloat16", "training.max_steps=1"]

    train(load_recipe(recipe, [*words, f"run_directory={directory.path}"]), directory)

    assert directory.read_manifest()["speed"] == {
        "quick_dropout": True, "fused_lora": True, "compact_batches": True,
        "allocator": False,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("optimization", ["fused LoRA", "compact batches", "all"])
@pytest.mark.parametrize("name", ["minilm_lora_sentiment", "distilbert_lora_yelp"])
def test_optimization_changes_no_number_of_a_classifier(name, optimization, overrides_for, models, outcome, tmp_path):
    recipe = ROOT / "recipes" / f"{name}.yaml"
    base = models[name.partition("_")[0]]
    config = json.loads((base / "config.json").read_text())
    dropout = [key for key in config if "dropout" in key and key != "classifier_dropout"]
    still = tmp_path.parent / f"still-{name}"
    if not still.exists():
        still.mkdir()
        for file in base.iterdir():
            (still / file.name).write_bytes(file.read_bytes())
        (still / "config.json").write_text(json.dumps(config | dict.fromkeys([*dropout, "classifier_dropout"], 0.0)))
    words = [*overrides_for(recipe), *PLAIN_STEPS, f"model.name={still}", "adapter.lora_dropout=0"]
    speed = {"all": {"fused_lora": True, "compact_batches": True}, "fused LoRA": {"fused_lora": True,
             "compact_batches": False}}.get(optimization, {"fused_lora": False, "compact_batches": True})  # fmt: skip
    plain = outcome(recipe, words, dict.fromkeys(speed, False))

    found = outcome(recipe, words, speed)

    assert not any(plain[2].values()) and found[2] == speed
    assert_the_same_training(found, plain)


@pytest.mark.parametrize(("setting", "on"), [("null", True), ("true", True), ("false", False)])
def test_quick_dropout_follows_the_recipe(setting, on, trained, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        dropout, "dropout_mask", lambda shape, p: drawn.append(p) or torch.ones(shape, dtype=torch.bool)
    )

    directory, _ = trained("minilm_lora_sentiment", f"speed.quick_dropout={setting}", "training.max_steps=1")

    assert directory.read_manifest()["speed"]["quick_dropout"] is on and bool(drawn) is on


@pytest.mark.slow
def test_two_ranks_have_the_same_losses_with_and_without_optimizations(rows, family_folder, fork_server, tmp_path):
    words = [SFT, *words_for("llama", rows, family_folder, tmp_path)]
    curves = []
    for name, speed in (("on", ALL), ("off", {"compact_batches": False, "fused_lora": False})):
        settings = [f"speed.{key}={json.dumps(value)}" for key, value in speed.items()]
        run = tmp_path / name
        codes, text = fork_server.run([*words, *settings, f"run_directory={run}"], tmp_path / f"{name}.log", ranks=2)
        assert codes == [0, 0], text[-3000:]
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        curves.append([line["loss"] for line in lines if "loss" in line])

    assert len(curves[0]) == 3 and curves[0] == pytest.approx(curves[1], rel=1e-5)


@pytest.mark.parametrize(
    ("recipe", "probe", "difference", "optimization"),
    [
        ("smollm2_qlora_quickstart", "eyas.speed.fused_lora.probe.probe_lora", (float("nan"), 1e-5), "fused_lora"),
        ("minilm_lora_sentiment", "eyas.speed.compact.encoder.probe_encoder", (float("nan"), 1e-5), "compact_batches"),
        ("minilm_lora_sentiment", "eyas.speed.compact.encoder.probe_encoder", (0.1, float("inf")), "compact_batches"),
    ],
)
def test_nan_in_a_probe_turns_its_optimization_off(
    recipe, probe, difference, optimization, trained, monkeypatch, tmp_path
):
    monkeypatch.setattr(probe, lambda *_: Difference(*difference))
    unfused = []
    monkeypatch.setattr("eyas.speed.fused_lora.linear.unfuse_lora", lambda model: unfused.append("fused_lora"))
    monkeypatch.setattr("eyas.speed.compact.encoder.compact_encoder", lambda model: pytest.fail("made compact"))

    words = ["model.dtype=float32", "training.max_steps=1", f"data.cache_directory={tmp_path}/kept"]
    directory, _ = trained(recipe, *words)

    assert directory.read_manifest()["speed"][optimization] is False
    assert unfused == ["fused_lora"] * (optimization == "fused_lora")


@pytest.mark.filterwarnings("ignore:.label_smoothing_factor. is deprecated:FutureWarning")  # TRL's own
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed.fused_lora=true", "adapter.use_dora=true"], "speed.fused_lora: true is not possible: no layer of"),
        (["speed.shared_beginnings=true", "adapter.lora_dropout=0.1"], "the adapter's dropout differs between rows"),
        (["speed.compact_batches=true", "training.label_smoothing_factor=0.1"], "label smoothing needs the logits of"),
        (["speed.dequantized_gib=0.00001"], "speed.dequantized_gib: 1e-05 is not possible: 0 of 14 4-bit layers"),
    ],
)
def test_required_optimization_that_is_not_possible_is_refused(words, message, trained):
    with pytest.raises(PreflightError, match=message):
        trained("smollm2_qlora_quickstart", "model.dtype=float32", *words)


@pytest.mark.parametrize("quantized", [False, True], ids=["dense", "4-bit"])
def test_model_in_bfloat16_is_probed_in_float32(quantized, rows, family_folder, tmp_path, capsys):
    words = [*words_for("llama", rows, family_folder, tmp_path), "model.dtype=bfloat16"]
    if quantized:
        words = [
            "quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}" if w == "quantization=null" else w
            for w in words
        ]
    directory = RunDirectory(tmp_path / "run")

    train(load_recipe(SFT, [*words, f"run_directory={directory.path}", "training.max_steps=1"]), directory)

    optimizations = directory.read_manifest()["speed"]
    assert optimizations["compact_batches"] and optimizations["shared_beginnings"] and optimizations["fused_lora"]
    output = capsys.readouterr().out
    assert f"weights {'4-bit nf4, the rest ' if quantized else ''}bfloat16; computing in bfloat16 autocast" in output
    difference, tolerance = re.search(r"padding removed \(max difference (\S+), tolerance (\S+)\)", output).groups()
    assert float(difference) < float(tolerance) < 1e-3


def test_model_that_is_not_exact_keeps_its_padding_and_reports_it(rows, family_folder, tmp_path, capsys):
    words = words_for("bloom", rows, family_folder, tmp_path)
    directory = RunDirectory(tmp_path / "run")

    train(load_recipe(SFT, [*words, f"run_directory={directory.path}", "training.max_steps=1"]), directory)

    assert directory.read_manifest()["speed"] == {
        "fused_lora": True, "compact_batches": False, "shared_beginnings": False,
        "allocator": False,
    }  # fmt: skip
    assert "BloomForCausalLM computes differently without padding; logits only where" in capsys.readouterr().out
