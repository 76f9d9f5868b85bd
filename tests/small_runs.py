"""Runs of one step on the smallest models of many families, with random weights, in this process."""

import shutil

import transformers
import yaml
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import stand_ins
from eyas.data.splits import tensors
from eyas.evaluation.evaluate import held_out
from eyas.export.fresh_process import compare_saved
from eyas.export.merge import merge
from eyas.export.reference import FinishedRun
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.training.run import train

BERT = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
}  # fmt: skip
LLAMA = BERT | {
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
MOE = LLAMA | {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
GPT2 = {
    "vocab_size": 400, "n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 256, "bos_token_id": 0,
    "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
DISTILBERT = {"vocab_size": 400, "dim": 64, "hidden_dim": 128, "n_layers": 1, "n_heads": 4}
FAMILIES = {
    "bert": ("BertModel", "BertConfig", BERT),
    "bert without a pooler": ("BertForMaskedLM", "BertConfig", BERT),
    "distilbert": ("DistilBertModel", "DistilBertConfig", DISTILBERT),
    "roberta": ("RobertaModel", "RobertaConfig", BERT | {"max_position_embeddings": 514, "pad_token_id": 0}),
    "electra": ("ElectraModel", "ElectraConfig", BERT | {"embedding_size": 64}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LLAMA),
    "qwen3 moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", MOE),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", LLAMA | {"num_local_experts": 4}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
}
"""Families: the class that is published, its config, and its settings."""

ENCODERS = {name for name, (_, _, settings) in FAMILIES.items() if settings in (DISTILBERT,)} | {
    "bert", "bert without a pooler", "roberta", "electra",
}  # fmt: skip
NF4, INT8 = {"load_in_4bit": True}, {"load_in_8bit": True}
TASKS = {
    "sequence_classification": lambda file: stand_ins.labelled_rows(file, "text", "label", ["no", "yes"]),
    "token_classification": stand_ins.tagged_rows,
    "sft": stand_ins.chat_rows,
}


def config_of(family):
    _, config, settings = FAMILIES[family]
    return getattr(transformers, config)(**settings)


def base_of(family, folder):
    """Write a family's published model into a folder, once; return the folder."""
    base = folder / family.replace(" ", "_")
    if not base.exists():
        words = {"bert": True} if family in ENCODERS else {"chat": True}
        stand_ins._write(base, getattr(transformers, FAMILIES[family][0]), config_of(family), **words)
    return base


def quantized_base_of(family, folder, **settings):
    """Write a family's model quantized, as some publish it."""
    base = folder / "quantized"
    quantization = BitsAndBytesConfig(**settings)
    model = AutoModelForCausalLM.from_pretrained(base_of(family, folder), quantization_config=quantization)
    model.save_pretrained(base)
    stand_ins.tokenizer(base, chat=True)
    return base


def start(folder, task, base, adapter=None, quantization=None, **sections):
    """Train one step in `folder/run`; return the run and its recipe."""
    rows = TASKS[task](folder / f"{task}.jsonl")
    training = {"max_steps": 1, "global_batch_size": 4, "per_device_train_batch_size": 4, "learning_rate": 0.02,
                "warmup_steps": 0, "logging_steps": 1, "max_length": 64}  # fmt: skip
    settings = {
        "task": task, "model": {"name": str(base), "dtype": "bfloat16"}, "quantization": quantization,
        "adapter": {"method": "lora", "r": 4, **(adapter or {})},
        "data": {"train": {"path": str(rows)}, "evaluation": {"path": str(rows)}, "limits": {"overlap": 1.0},
                 "cache_directory": str(folder / "prepared")},
        "training": training, "evaluation": {"rows": 4, "max_new_tokens": 4}, "export": {"dtype": "float32"},
        "run_directory": str(folder / "run"), **sections,
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    recipe, run = load_recipe(file), RunDirectory(folder / "run")
    shutil.rmtree(run.path, ignore_errors=True)
    train(recipe, run)
    return run, recipe


class ReadsHere:
    """Reader that opens the merged model in this process, without new imports."""

    def compare(self, *given):
        return compare_saved(*given)


def merged(run):
    """Merge a run and return the proof."""
    from eyas.cli.open_run import open_run

    with open_run(run.path) as opened:
        sequences = opened.kept.spec.sequences
        rows = held_out(opened.recipe, opened.kept)
        probes = [tensors(sequence) for _, example in rows for sequence in sequences(example)]
        finished = FinishedRun(run, opened.recipe, opened.task.auto_model, opened.labels, opened.tokenizer)
        return merge(finished, probes, ReadsHere())
