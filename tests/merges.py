"""Tiny runs to merge: a random base, a random adapter on it, and rows of random tokens."""

import json
import random

import torch
from peft.tuners.lora.layer import Linear
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import families
from eyas.export.fresh_process import compare_saved
from eyas.export.merge import merge
from eyas.export.reference import FinishedRun
from eyas.model.adapter import adapter_config
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import files_in, listed, write_seal

TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"falcon": 0})))


class SameProcess:
    """Reader in this process that may change the saved folder first."""

    def __init__(self, change=lambda folder: None):
        self.change = change

    def compare(self, name, folder, auto_model, recorded):
        self.change(folder)
        return compare_saved(name, folder, auto_model, recorded)


def random_rows(rows, seed=0, longest=24):
    """Return rows of random tokens of different lengths."""
    draw = random.Random(seed)
    made = []
    for _ in range(rows):
        ids = torch.tensor([[draw.randrange(3, families.VOCABULARY) for _ in range(draw.randint(5, longest))]])
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return made


def seal_again(folder, kind="adapter"):
    """Seal a changed folder, so that only its content can reveal the change."""
    write_seal(folder, listed(folder, files_in(folder)), {"kind": kind})


def finished_run(folder, family="llama", dtype="bfloat16", size=0.3, seed=0, export=None, adapter=None, **config):
    """Return a finished run with an adapter, and its recipe.

    The adapter's updates are `size` times as large as their weights. `adapter` and `export` are settings of the recipe,
    `config` those of the model.
    """
    base = families.make(family, **config)
    torch.manual_seed(seed)
    base.to(getattr(torch, dtype)).save_pretrained(folder / "base")
    recipe = Recipe.model_validate({
        "task": "sft", "model": {"name": str(folder / "base"), "dtype": dtype},
        "adapter": {"method": "lora", "r": 4, "lora_alpha": 8, "fan_in_fan_out": family == "gpt2", **(adapter or {})},
        "data": {"train": {"path": "rows.jsonl"}}, "export": export or {}, "run_directory": str(folder / "run"),
    })  # fmt: skip
    run = RunDirectory(folder / "run")
    train(base.float(), recipe, size).save_pretrained(run.adapter, save_embedding_layers=False)
    seal_again(run.adapter)
    return run, recipe


def train(base, recipe, size):
    """Return the base with a random adapter; `size` is each update's norm relative to its weight."""
    from peft import get_peft_model

    tuned = get_peft_model(base, adapter_config(recipe.adapter, "CAUSAL_LM"))
    for layer in (module for module in tuned.modules() if hasattr(module, "lora_A")):
        for factor in layer.lora_embedding_A.values():
            torch.nn.init.normal_(factor)
        for factor in (*layer.lora_B.values(), *layer.lora_embedding_B.values()):
            of_b = factor.weight if hasattr(factor, "weight") else factor
            torch.nn.init.normal_(of_b)
            weight, update = getattr(layer.get_base_layer(), "weight", None), layer.get_delta_weight("default").detach()
            of_b.data *= size if weight is None else float(size * weight.detach().norm() / update.norm())
            if getattr(factor, "bias", None) is not None:
                torch.nn.init.normal_(factor.bias, std=0.1)
        for magnitude in getattr(layer, "lora_magnitude_vector", {}).values():
            magnitude.weight.data *= 1 + size * torch.rand_like(magnitude.weight)
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad and ("modules_to_save" in name or name.endswith(".bias")):
            parameter.data += size * parameter.std(correction=0).clamp(0.1) * torch.randn_like(parameter)
    return tuned


def merged(run, recipe, rows=8, seed=0, reader=None, probes=None, **options):
    """Merge a run in this process and return the proof, on random rows by default."""
    finished = FinishedRun(run, recipe, "AutoModelForCausalLM", None, TOKENIZER)
    return merge(finished, probes or random_rows(rows, seed), reader or SameProcess(), **options)


def plant_wrong_update(monkeypatch, error):
    """Merge the last linear layer with an update that is off by `error`, relative to its size."""
    from eyas.export import merge as merge_module

    right = merge_module.merge_and_check

    def wrong(tuned, *others):
        *_, layer = (module for module in tuned.modules() if isinstance(module, Linear))
        update = layer.get_delta_weight("default").detach() * (1 + error)
        layer.get_delta_weight = lambda _adapter: update
        return right(tuned, *others)

    monkeypatch.setattr(merge_module, "merge_and_check", wrong)


def change_json(file, **changes):
    """Change settings in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
