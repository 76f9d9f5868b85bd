"""Other trainers on a job of benchmarks/training_speed.py; each prints a line per step.

python benchmarks/contestants.py NAME JOB.json

Each is written as its own documentation shows it. They share what decides the numbers: rows, their order, the seed, the
adapter's layers and the learning rate.
"""

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def trl(job: Job, **switches: Any) -> None:
    """TRL's SFTTrainer on tokenized and labeled rows; its own template would label one token more."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, set_seed
    from trl import SFTConfig, SFTTrainer

    from eyas.model.quantization import falcon_can_be_quantized

    set_seed(job["seed"])
    quantization = {"quantization_config": BitsAndBytesConfig(**job["quantization"])} if job["quantization"] else {}
    with falcon_can_be_quantized():  # else TRL would silently train Falcon in full precision
        trainer = SFTTrainer(
            model=job["model"],
            args=SFTConfig(
                **common(job),
                max_length=job["max_length"],
                model_init_kwargs={"dtype": job["dtype"], **quantization},
                **switches,
            ),
            train_dataset=Dataset.from_list(job["rows"]),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **job["adapter"]) if job["adapter"] else None,
        )
    train(trainer)


def unsloth(job: Job) -> None:
    """unsloth as in its notebooks; importing it changes TRL. Not yet run: it needs a GPU."""
    from unsloth import FastModel  # isort: skip
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = FastModel.from_pretrained(
        job["model"], max_seq_length=job["max_length"], dtype=job["dtype"], load_in_4bit=bool(job["quantization"]),
        full_finetuning=job["adapter"] is None,
    )  # fmt: skip
    if job["adapter"]:
        model = FastModel.get_peft_model(
            model, **job["adapter"], use_gradient_checkpointing="unsloth", random_state=job["seed"]
        )
    args = SFTConfig(**common(job), max_length=job["max_length"])
    rows = Dataset.from_list(job["rows"])
    train(SFTTrainer(model=model, processing_class=tokenizer, args=args, train_dataset=rows))


def transformers_and_peft(job: Job, **switches: Any) -> None:
    """transformers' Trainer with a peft model; rows of token ids and labels are padded to the batch's longest."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=job["dtype"])
    trainer = Trainer(
        model=get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **job["adapter"])),
        args=TrainingArguments(**common(job) | switches),
        train_dataset=Dataset.from_list(job["rows"]),
        data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(job["model"])),
    )
    train(trainer)


def classifier(job: Job, padding: str, **switches: Any) -> None:
    """transformers' Trainer with a peft classifier; `padding` is `max_length` or `longest`."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=job["labels"], dtype=job["dtype"]
    )
    trainer = Trainer(
        model=get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **job["adapter"])),
        args=TrainingArguments(**common(job) | switches),
        train_dataset=Dataset.from_list(job["rows"]),
        data_collator=DataCollatorWithPadding(tokenizer, padding=padding, max_length=job["max_length"]),
    )
    train(trainer)


def llama_factory(job: Job, **switches: Any) -> None:
    """LLaMA-Factory on tokenized rows; like TRL, it recomputes activations by default."""
    import transformers  # noqa: F401  (looks for torchaudio first)
    from datasets import Dataset, DatasetDict

    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))  # imported for sound; has no build for CPUs
    from llamafactory.train.tuner import run_exp

    nothing = {"images": None, "videos": None, "audios": None}
    rows = Dataset.from_list([{**row, "attention_mask": [1] * len(row["input_ids"]), **nothing} for row in job["rows"]])
    DatasetDict(train=rows).save_to_disk(f"{job['folder']}/rows")
    told = common(job)
    del told["train_sampling_strategy"]
    adapter = job["adapter"]
    run_exp(
        told | switches | {
            "stage": "sft", "do_train": True, "model_name_or_path": computing_in(job["dtype"], job),
            "template": "empty", "dataset": "of_tokenized_path", "tokenized_path": f"{job['folder']}/rows",
            "cutoff_len": job["max_length"], "overwrite_output_dir": True,
            "finetuning_type": "lora", "lora_rank": adapter["r"], "lora_alpha": adapter["lora_alpha"],
            "lora_target": ",".join(adapter["target_modules"]), "disable_shuffling": True,
        },
        callbacks=[lines()],
    )  # fmt: skip


def computing_in(dtype: str, job: Job) -> str:
    """Return a folder with a job's model whose config names a dtype, for a trainer without another setting."""
    model, copy = Path(job["model"]).resolve(), Path(job["folder"], "model")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for file in model.iterdir():
        (copy / file.name).symlink_to(file)
    (copy / "config.json").unlink()
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"dtype": dtype}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(copy)


def common(job: Job) -> dict[str, Any]:
    """Return the training arguments of every trainer."""
    return {
        "output_dir": job["folder"],
        "per_device_train_batch_size": job["batch"],
        "max_steps": job["steps"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": job["device"] == "cpu",
        "bf16": job["dtype"] == "bfloat16",
        "seed": job["seed"],
        **({"optim": job["optim"]} if job["optim"] else {}),
    }


def train(trainer: Any) -> None:
    """Train, and print the loss after each step."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(lines())
    trainer.train()


def lines() -> Any:
    """Return a callback that prints a line per step, and the GPU's peak memory at the end."""
    import torch
    from transformers import TrainerCallback

    class Lines(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if "loss" in logs:
                print(f"step {state.global_step} loss {logs['loss']}", flush=True)

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                print(f"device peak {torch.cuda.max_memory_allocated()}", flush=True)

    return Lines()


CONTESTANTS = {
    "TRL": lambda job: trl(job),
    "TRL, best switches": lambda job: trl(job, gradient_checkpointing=False),
    "TRL, Liger": lambda job: trl(job, gradient_checkpointing=False, use_liger_kernel=True),
    "unsloth": lambda job: unsloth(job),
    "TRL, padding-free": lambda job: trl(job, gradient_checkpointing=False, padding_free=True),
    "HF Trainer + peft": lambda job: transformers_and_peft(job),
    "LLaMA-Factory": lambda job: llama_factory(job),
    "LLaMA-Factory, best switches": lambda job: llama_factory(job, disable_gradient_checkpointing=True),
    "HF Trainer, padded to 128": lambda job: classifier(job, "max_length"),
    "HF Trainer, padded to the longest": lambda job: classifier(job, "longest"),
    "HF Trainer, grouped by length": lambda job: classifier(job, "longest", train_sampling_strategy="group_by_length"),
}

if __name__ == "__main__":
    name, file = sys.argv[1:]
    with open(file, encoding="utf-8") as stream:
        CONTESTANTS[name](json.load(stream))
