"""Noise and dropout of compact batches are those of padded rows."""

import json

import pytest
from transformers import AutoTokenizer
from transformers.integrations.neftune import activate_neftune

import families
import stand_ins
from conftest import ROOT
from eyas.data.examples import LANGUAGE, ModelLimits
from eyas.data.prepare import prepare
from eyas.model.load import load_config, load_model
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.speed.apply import apply
from eyas.tasks.sft import arguments_for, build_trainer

ALPHA = 5.0


@pytest.fixture
def built(tmp_path):
    """Return a function that builds a trainer of a tiny model with its optimizations, which it returns by name."""

    def build(family, settings, *words):
        folder = tmp_path / "model"
        vocabulary = {"vocab_size": 400, "pad_token_id": None}
        families.make(family, **vocabulary, **settings).save_pretrained(folder)
        stand_ins.tokenizer(folder, chat=True)
        rows = tmp_path / "rows.jsonl"
        texts = [stand_ins.sentence(0) + " and" * (3 * row) for row in range(8)]
        rows.write_text("".join(json.dumps({"prompt": text, "completion": " it"}) + "\n" for text in texts))
        recipe = load_recipe(
            ROOT / "recipes" / "smollm2_qlora_quickstart.yaml",
            [
                f"model.name={folder}", "quantization=null", "adapter=null", f"data.train={{path: {rows}}}",
                "data.evaluation=null", f"data.cache_directory={tmp_path}/kept", "model.dtype=float32", *words,
            ],
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.pad_token = tokenizer.eos_token
        splits = prepare(recipe, tokenizer, LANGUAGE, ModelLimits(128, 400))
        model, _ = load_model(recipe.model, None, load_config(recipe.model), "AutoModelForCausalLM")
        arguments = arguments_for(recipe, RunDirectory(tmp_path / "run"))
        trainer = build_trainer(recipe, arguments, model, tokenizer, splits)
        return trainer, {each.name: each for each in apply(recipe, trainer, splits.train, "causal_lm")}

    return build


@pytest.mark.parametrize("words", [[], ["training.packing=true"], ["training.padding_free=true"]], ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_noise_is_scaled_by_the_batch_that_the_collator_makes(family, words, built):
    trainer, optimizations = built(family, {}, f"training.neftune_noise_alpha={ALPHA}", *words)
    embeddings, seen = trainer.model.get_input_embeddings(), []
    embeddings.register_forward_hook(lambda _module, _inputs, clean: seen.append(clean.detach()))
    activate_neftune(trainer.model, ALPHA)
    embeddings.register_forward_hook(lambda _module, _inputs, noisy: seen.append(noisy.detach()))
    batch = next(iter(trainer.get_train_dataloader()))
    ids = batch["input_ids"]

    trainer.model.train()
    trainer.compute_loss(trainer.model, batch)

    clean, noisy = seen
    assert clean.shape[:2] == ids.shape
    scale = ALPHA / (ids.shape[1] * clean.shape[2]) ** 0.5
    largest = (noisy - clean).abs().amax((1, 2))
    assert largest.max() <= scale * 1.0001 and (largest > 0.98 * scale).all()
    assert len({float(row) for row in (noisy - clean)[:, 0, 0]}) == len(ids)  # each row has its own draw
    assert not optimizations["compact_batches"].on
    assert "NEFTune scales its noise by the length of a padded batch" in optimizations["compact_batches"].reason


RANDOM = {
    "llama": ({"attention_dropout": 0.1}, "attention_dropout 0.1"),
    "opt": ({"dropout": 0.1}, "dropout 0.1"),
    "falcon 7b": ({"hidden_dropout": 0.2}, "hidden_dropout 0.2"),
    "mixtral": ({"router_jitter_noise": 0.1}, "router_jitter_noise 0.1"),
    "gpt2": ({"resid_pdrop": 0.1, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, "resid_pdrop 0.1"),
}


@pytest.mark.parametrize("family", RANDOM)
def test_a_random_layer_draws_for_each_row_of_a_shared_prefix(family, built):
    settings, reason = RANDOM[family]

    _, optimizations = built(family, settings)

    shared = optimizations["shared_beginnings"]
    assert not shared.on and shared.reason == f"the model's {reason} differs between rows"


def test_a_dropout_of_a_head_that_a_language_model_has_not_is_no_obstacle(built):
    _, optimizations = built("gpt-neox", {"classifier_dropout": 0.5, "attention_dropout": 0.0, "hidden_dropout": 0.0})

    assert optimizations["shared_beginnings"].on
