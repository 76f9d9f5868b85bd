"""A correct merge is released, for any family, kind of LoRA, dtype and size of update."""

import json
import random

import pytest
from safetensors.torch import load_file

import merges
from eyas.export.refusals import ArtifactRefused

pytestmark = [
    pytest.mark.slow,
    # peft's notices on intended settings, and on settings of its own
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'.* LoRA tensor.s. have invalid shape"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
]
PATTERNS = {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 3}, "rank_pattern": {"k_proj": 2}}
SHARP = {"initializer_range": 0.5}  # logits of many units, and near ties among them
SIZES = (1e-4, 1e-2, 0.3)


@pytest.mark.parametrize("rows", [4, 8, 16])
@pytest.mark.parametrize(
    ("family", "dtype", "export"),
    [
        ("falcon 7b", "bfloat16", None),
        ("llama", "bfloat16", None),
        ("qwen3", "float32", "bfloat16"),
        ("gpt2", "float32", None),
        ("mixtral", "bfloat16", "float16"),
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_a_correct_merge_is_released_on_few_probes(size, family, dtype, export, rows, tmp_path):
    run, recipe = merges.finished_run(tmp_path, family, dtype, size, seed=rows, export={"dtype": export}, **SHARP)

    proof = merges.merged(run, recipe, rows, seed=rows)

    assert proof.weights.faults == () and proof.in_float32.clear_flips == 0
    assert 0.7 < proof.share_kept < 1.3
    saved = {str(tensor.dtype) for tensor in load_file(run.merged / "model.safetensors").values()}
    assert saved == {f"torch.{export or dtype}"} and proof.dtype == (export or dtype)


@pytest.mark.parametrize(
    ("family", "adapter", "config", "updates", "unchecked"),
    [
        ("llama", {"use_dora": True}, {}, 14, 0),
        ("llama", {"use_rslora": True}, {}, 14, 0),
        ("llama", PATTERNS, {}, 14, 0),
        ("phi", {"lora_bias": True, "target_modules": ["q_proj", "fc1"]}, {}, 8, 0),
        ("phi", {"bias": "all"}, {}, 12, 0),
        ("phi", {"bias": "lora_only", "target_modules": ["q_proj"]}, {}, 2, 0),
        ("llama", {"modules_to_save": ["lm_head"]}, {}, 14, 0),
        ("llama", {"target_modules": ["embed_tokens", "q_proj"]}, {}, 3, 0),
        ("llama", {"target_modules": ["embed_tokens", "q_proj"]}, {"tie_word_embeddings": True}, 3, 0),
        ("llama", {"target_modules": ["lm_head", "q_proj"]}, {"tie_word_embeddings": True}, 3, 0),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"]}, {}, 6, 0),
        ("llama", {"trainable_token_indices": [5, 9]}, {}, 14, 1),
        ("mixtral", {}, {}, 8, 4),
    ],
    ids=[
        "DoRA", "rsLoRA", "patterns", "lora_bias", "bias: all", "bias: lora_only", "a layer in full", "embeddings",
        "tied embeddings", "a tied head", "Conv1D", "token indices", "experts",
    ],
)  # fmt: skip
def test_each_kind_of_lora_merges_to_the_trained_model(family, adapter, config, updates, unchecked, tmp_path):
    run, recipe = merges.finished_run(tmp_path, family, "float32", adapter=adapter, **config)

    proof = merges.merged(run, recipe)

    assert proof.weights.faults == ()
    assert (len(proof.weights.updates), len(proof.weights.unchecked)) == (updates, unchecked)
    assert max(update.error for update in proof.weights.updates) < 1e-5
    assert proof.rounded.kl_per_token <= 1e-9 < 1e-6 < proof.base.kl_per_token
    assert json.loads(run.parity.read_text())["in float32"]["top1_agreement"] == 1


def test_an_update_below_the_steps_of_bfloat16_survives_on_average(tmp_path):
    run, recipe = merges.finished_run(tmp_path, size=1e-3)

    proof = merges.merged(run, recipe, 16)

    assert proof.stochastic == 14 and proof.share_kept == pytest.approx(1, abs=0.1)
    assert "The saved weights hold" in (run.merged / "README.md").read_text()


def test_an_update_lost_to_nearest_rounding_is_refused_with_advice(tmp_path):
    run, recipe = merges.finished_run(tmp_path, size=3e-4, export={"rounding": "nearest"})

    with pytest.raises(ArtifactRefused) as caught:
        merges.merged(run, recipe, 16)

    assert "rounded to bfloat16, the merged model has lost what was trained" in str(caught.value)
    assert "eyas merge RUN --dtype float32" in str(caught.value) and "float16" in str(caught.value)
    assert not run.merged.exists()


def test_requested_stochastic_rounding_is_used_and_repeats(tmp_path):
    digests = []
    for again in range(2):
        run, recipe = merges.finished_run(tmp_path / str(again), export={"rounding": "stochastic"})
        assert merges.merged(run, recipe).stochastic == 14
        digests.append((run.merged / "model.safetensors").read_bytes())

    nearest = merges.finished_run(tmp_path / "nearest", export={"rounding": "nearest"})
    assert merges.merged(*nearest).stochastic == 0
    assert digests[0] == digests[1] != (nearest[0].merged / "model.safetensors").read_bytes()


def test_the_figures_separate_the_update_from_the_cost_of_rounding(tmp_path):
    run, recipe = merges.finished_run(tmp_path, dtype="float32", size=0.3, export={"dtype": "bfloat16"})

    merges.merged(run, recipe, 16)

    recorded = json.loads(run.parity.read_text())
    assert list(recorded)[:2] == ["in float32", "rounded to bfloat16"]
    kl = {name: figures["kl_per_token"] for name, figures in recorded.items() if "kl_per_token" in str(figures)}
    assert kl["in float32"] < 1e-9 < kl["rounded to bfloat16"] < kl["the base"] / 100
    assert kl["rounded to bfloat16"] < 4 * kl["the base alone, rounded to bfloat16"]
    assert 1 / 4 < kl["rounded to bfloat16"] / kl["a random change as large as rounding's"] < 4
    assert recorded["share_of_update_kept"] == pytest.approx(1, abs=0.01) and recorded["dtype"] == "bfloat16"


@pytest.mark.sweep
def test_random_merges_are_released_when_correct_and_refused_when_wrong(tmp_path, monkeypatch):
    wrong = correct = 0
    for number in range(1000, 1200):
        draw = random.Random(number)
        family = draw.choice(["llama", "qwen3", "falcon 7b", "falcon 40b", "gpt2", "phi", "opt", "gpt-neox", "mixtral"])
        run, recipe = merges.finished_run(
            tmp_path / str(number), family, draw.choice(["bfloat16", "float32"]), 10 ** draw.uniform(-4, 0), number,
            export={"dtype": draw.choice([None, "float32", "bfloat16", "float16"])},
            initializer_range=draw.choice([0.02, 0.2, 0.5]),
        )  # fmt: skip
        rows = draw.choice([4, 8, 16, 32])
        proof = merges.merged(run, recipe, rows, number)
        correct += 1
        assert proof.in_float32.kl_per_token < 4 * proof.noise.kl_per_token + 1e-12, number
        run.merged.rename(tmp_path / str(number) / "correct")
        with monkeypatch.context() as patch:
            merges.plant_wrong_update(patch, error=10 ** draw.uniform(-2, 0))
            with pytest.raises(ArtifactRefused):
                merges.merged(run, recipe, rows, number)
        wrong += 1
    assert correct == wrong == 200
