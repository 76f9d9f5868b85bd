"""Speed of eyas and other trainers on the same job, measured in turns on this machine.

python benchmarks/training_speed.py JOB [--rounds 3] [--steps 10] [--only NAME …] [--write]
                                        [--allocator] [--tiny]

JOB is sft, sft_no_prefix, qlora or classification, in float32 or, with _bf16 behind it, in bfloat16 (the classifier
against others in float32), or two_ranks: two processes against one. The models and rows are those of `eyas demo`.
For a GPU there are falcon7b and llama7b with _qlora, _lora or _full behind them, in bfloat16: random weights and texts
of 256 to 1,024 tokens, 4 a step. Not yet run on a GPU; --tiny rehearses them anywhere, with a model of some kilobytes.

Run it on a machine that does nothing else. Each round runs every contestant once, the next round in the opposite order;
what is quoted is the median over the rounds of a ratio taken within one round, and the worst of them. Every contestant
gets the same rows in the same order, and the loss of each step is held against that of the padded reference. eyas gives
itself jemalloc, or where that is not installed glibc's huge pages (`src/eyas/allocator.py`); with --allocator all have
that.

A trainer that needs other versions than eyas has an environment of its own, and is left out where there is none:
  python -m venv .peers/llamafactory && .peers/llamafactory/bin/pip install llamafactory==0.9.5 torch==2.13.0
  .peers/llamafactory/bin/pip uninstall -y torchvision torchaudio   (on a CPU: their builds are for GPUs)
  python -m venv .peers/unsloth && .peers/unsloth/bin/pip install unsloth   (GPUs only)
  python -m venv .peers/liger && .peers/liger/bin/pip install -c constraints.txt trl peft bitsandbytes liger-kernel
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapes import SHAPES, write_model, write_rows
from transformers import AutoConfig

from eyas import allocator
from eyas.hardware import has_gpu, this_machine
from eyas.model.load import empty_model
from eyas.preflight.versions import installed_versions
from eyas.recipe import Recipe, load_recipe
from eyas.tasks import TASKS
from eyas.tasks.rows import load_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OURS, TWO_RANKS, ALL_ON, KEPT = "eyas", "eyas, two ranks", "eyas, all optimizations", "eyas, nothing recomputed"
WAYS = {
    OURS: [],
    TWO_RANKS: ["--config_file", "accelerate_configs/ddp.yaml"],
    ALL_ON: ["speed.compact_batches=true", "speed.fused_lora=true"],
    KEPT: ["training.activation_checkpointing=false"],
}
"""Settings of eyas on top of the job's. On a GPU its optimizations are off by default."""
WARM_UP = 2
"""Untimed warm-up steps, for allocators, caches and compilers."""
STEP = re.compile(r"^step (\d+)(?:/\d+)?\s+loss (\S+)")
DEVICE_PEAK = re.compile(r"^device peak (\d+)")
INSTRUCTION = (
    "You label sentences for a newsroom. Read the sentence, decide where it was written and which feeling its author "
    'shows, and answer with one line of JSON and nothing else: {"source": "movie|tweet|product|news", "sentiment": '
    '"negative|neutral|positive"}'
)
"""63 of a row's 104 tokens, with 15 supervised ones: the shape of a job that labels, extracts or routes."""
ALL_LINEAR = "[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]"
LLAMA_FACTORY = ("LLaMA-Factory", "LLaMA-Factory, best switches")
ENVIRONMENTS = {**dict.fromkeys(LLAMA_FACTORY, "llamafactory"), "unsloth": "unsloth", "TRL, Liger": "liger"}
SFT_PEERS = ("HF Trainer + peft", "TRL", "TRL, best switches", *LLAMA_FACTORY)
GPU_PEERS = ("TRL", "TRL, best switches", ALL_ON, KEPT, "unsloth")
BF16 = "model.dtype=bfloat16"
CLASSIFIERS = ("HF Trainer, padded to the longest", "HF Trainer, padded to 128", "HF Trainer, grouped by length")
SFT = ("smollm2_qlora_quickstart", f"adapter.target_modules={ALL_LINEAR}", "training.learning_rate=2e-4")


@dataclass(frozen=True)
class Question:
    """A job: its settings for eyas, and the other trainers. The first one is the exact reference."""

    recipe: str
    words: tuple[str, ...]
    peers: tuple[str, ...]
    own_prefix: bool = False
    """True gives each row its own instruction, so that no two rows share a prefix."""
    dtype_of_peers: str | None = None
    """Data type of the other trainers, if it differs."""
    shape: str | None = None
    """Model of `shapes.py` instead of the recipe's."""


def of_shape(shape: str, how: str) -> Question:
    """Return the job of a 7B model: LoRA on each linear layer, on 4-bit or bfloat16 weights, or full fine-tuning."""
    words = ["training.global_batch_size=4", "training.packing=false", "training.activation_checkpointing=null"]
    peers = GPU_PEERS
    if how != "qlora":
        words += ["quantization=null"]
    if shape == "llama7b":
        words += [f"adapter.target_modules={ALL_LINEAR}"]
        peers = (*peers, "TRL, padding-free", "TRL, Liger")
    if how == "full":
        words += ["adapter=null", "training.optim=paged_adamw_8bit" if has_gpu() else "training.optim=adamw_torch"]
        peers = tuple(name for name in peers if name != ALL_ON)  # one of them is of LoRA
    return Question("falcon7b_qlora", (*words, BF16), peers, shape=shape)


QUESTIONS = {
    "sft": Question(SFT[0], (*SFT[1:], "quantization=null"), SFT_PEERS),
    "sft_bf16": Question(SFT[0], (*SFT[1:], "quantization=null", BF16), SFT_PEERS),
    "sft_no_prefix": Question(SFT[0], (*SFT[1:], "quantization=null"), SFT_PEERS, own_prefix=True),
    "sft_no_prefix_bf16": Question(SFT[0], (*SFT[1:], "quantization=null", BF16), SFT_PEERS, own_prefix=True),
    "two_ranks": Question(SFT[0], (*SFT[1:], "quantization=null"), (TWO_RANKS,), own_prefix=True),
    "two_ranks_bf16": Question(SFT[0], (*SFT[1:], "quantization=null", BF16), (TWO_RANKS,), own_prefix=True),
    "qlora": Question(SFT[0], SFT[1:], ("TRL", "TRL, best switches")),
    "qlora_bf16": Question(SFT[0], (*SFT[1:], BF16), ("TRL", "TRL, best switches")),
    "classification": Question(
        "minilm_lora_sentiment",
        ("training.learning_rate=2e-4",),
        CLASSIFIERS,
    ),
    "classification_bf16": Question(
        "minilm_lora_sentiment", ("training.learning_rate=2e-4", BF16), CLASSIFIERS, dtype_of_peers="float32"
    ),
    **{f"{shape}_{how}": of_shape(shape, how) for shape in SHAPES for how in ("qlora", "lora", "full")},
}


@dataclass(frozen=True)
class Measured:
    """One contestant in one round."""

    samples_per_second: float
    tokens_per_second: float
    """Counts the rows' own tokens, without padding."""
    peak_bytes: int
    first_step_seconds: float
    losses: list[float]


def job_of(question: Question, steps: int, folder: Path, tiny: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Write a job's rows, and its model if it is a shape; return the peers' settings and the words for eyas."""
    bare = load_recipe(ROOT / "recipes" / f"{question.recipe}.yaml")
    batch = bare.training.per_device_train_batch_size
    file, words = folder / "rows.jsonl", [*question.words]
    if question.shape:
        write_model(question.shape, folder / "model", tiny)
        write_rows(file, steps * batch, bare.training.max_length // (16 if tiny else 1))
        words += [f"model.name={folder / 'model'}"]
    else:
        lines = (ROOT / bare.data.train.path).read_text(encoding="utf-8").splitlines()[: steps * batch]
        rows = [json.loads(line) for line in lines]
        for number, row in enumerate(rows):
            if "messages" in row:
                row["messages"][0]["content"] = f"{number}. {INSTRUCTION}" if question.own_prefix else INSTRUCTION
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words += [
        f"data.train={{path: {file}}}", "data.evaluation=null", f"training.max_steps={steps}",
        "training.lr_scheduler_type=constant", "training.warmup_steps=0", "training.logging_steps=1",
        "training.train_sampling_strategy=sequential", f"data.cache_directory={folder / 'prepared'}",
    ]  # fmt: skip
    recipe = load_recipe(ROOT / "recipes" / f"{question.recipe}.yaml", words)
    parts = {"r", "lora_alpha", "target_modules", "modules_to_save"}
    told = {
        "model": recipe.model.name, "dtype": question.dtype_of_peers or recipe.model.dtype,
        "device": "cuda" if has_gpu() else "cpu", "seed": recipe.training.seed, "batch": batch, "steps": steps,
        "learning_rate": recipe.training.learning_rate, "optim": recipe.training.model_dump().get("optim"),
        "adapter": recipe.adapter and recipe.adapter.model_dump(include=parts),
        "max_length": recipe.training.max_length, "labels": len(recipe.data.labels or []),
        "quantization": recipe.quantization and recipe.quantization.model_dump(exclude_unset=True),
        "rows": tokens_of(recipe), "folder": str(folder / "peer"),
    }  # fmt: skip
    return told, words


def tokens_of(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the rows of eyas: token ids and labels."""
    return [dict(example) for example in load_rows(recipe).splits.train.for_trainer]


def measure(name: str, job: dict[str, Any], words: list[str], folder: Path, environment: dict[str, str]) -> Measured:
    """Run one contestant in its own process, and record the time of each step."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    if name in WAYS:
        recipe = str(ROOT / "recipes" / f"{job['recipe']}.yaml")
        command = [str(Path(sys.executable).with_name("eyas")), "train", recipe, *words, f"run_directory={run}"]
        command += [f"training.per_device_train_batch_size={job['batch'] // (2 if name == TWO_RANKS else 1)}"]
        command += WAYS[name]
    else:
        file = folder / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        command = [str(interpreter(name)), str(ROOT / "benchmarks" / "contestants.py"), name, str(file)]
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    told, times, losses, peak = [], [], [], None
    for line in process.stdout:
        told.append(line)
        if found := STEP.match(line):
            times.append(time.monotonic() - began)
            losses.append(float(found[2]))
        elif found := DEVICE_PEAK.match(line):
            peak = int(found[1])
    _, status, usage = os.wait4(process.pid, 0)
    if status or len(times) != job["steps"]:
        sys.exit(f"{name} ended with {status} after {len(times)} steps:\n{''.join(told[-30:])}")
    seconds, timed = times[-1] - times[WARM_UP - 1], job["steps"] - WARM_UP
    tokens = sum(len(row["input_ids"]) for row in job["rows"][WARM_UP * job["batch"] :])
    if name in WAYS:
        logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        losses = [line["loss"] for line in logged if "loss" in line]
        peak = logged[-1]["peak_bytes"] if has_gpu() else None
    held = usage.ru_maxrss * 1024 if peak is None else peak
    return Measured(timed * job["batch"] / seconds, tokens / seconds, held, times[0], losses)


def interpreter(name: str) -> Path:
    """Return the Python interpreter of a contestant."""
    return ROOT / ".peers" / ENVIRONMENTS[name] / "bin" / "python" if name in ENVIRONMENTS else Path(sys.executable)


def gemm_peak(dtype: str, tiny: bool) -> float:
    """Return the FLOP/s of the fastest of some products of this model's sizes, in its own process."""
    device = "cuda" if has_gpu() else "cpu"
    sizes: tuple[tuple[int, int, int], ...] = (
        ((8192, 8192, 8192),) if has_gpu() else ((880, 576, 1536), (880, 1536, 576), (2048, 2048, 2048))
    )
    if tiny:
        sizes = ((64, 64, 64),)
    code = (
        "import time, torch\n"
        "best, wait = 0, torch.cuda.synchronize if torch.cuda.is_available() else lambda: None\n"
        f"for rows, inner, columns in {sizes}:\n"
        f"    a, b = (torch.randn(shape, dtype=torch.{dtype}, device='{device}')\n"
        "            for shape in ((rows, inner), (inner, columns)))\n"
        "    until = time.perf_counter() + 5\n"
        "    for _ in range(20):\n"
        "        if time.perf_counter() > until:  # a CPU without bfloat16 products takes a minute for each\n"
        "            break\n"
        "        wait()\n"
        "        began = time.perf_counter()\n"
        "        a @ b\n"
        "        wait()\n"
        "        best = max(best, 2 * rows * inner * columns / (time.perf_counter() - began))\n"
        "print(best)\n"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def flops_per_row(job: dict[str, Any], task: str) -> float:
    """Return the matrix-product operations that one row of a job needs, without a shared prefix.

    For a frozen weight: the product and the gradient of its input; for a trainable one also its own gradient;
    for the output head only where a token is supervised. Products within attention are not counted.
    """
    import torch

    empty = empty_model(AutoConfig.from_pretrained(job["model"]), TASKS[task].auto_model)
    head = empty.get_output_embeddings()
    layers = {
        name: module
        for name, module in empty.base_model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    adapter = job["adapter"] or {"r": 0, "target_modules": ()}
    adapted = [m for name, m in layers.items() if name.rpartition(".")[2] in adapter["target_modules"]]
    own = (4 if job["adapter"] else 6) * sum(module.weight.numel() for module in layers.values())
    adapters = 6 * sum(adapter["r"] * (module.in_features + module.out_features) for module in adapted)
    tokens = statistics.mean(len(row["input_ids"]) for row in job["rows"])
    learnt = statistics.mean(sum(each != -100 for each in row["labels"]) for row in job["rows"]) if head else 0
    return tokens * (own + adapters) + learnt * (4 if job["adapter"] else 6) * (head.weight.numel() if head else 0)


def compare(asked: Question, rounds: int, steps: int, only: list[str], environment: dict[str, str], tiny: bool) -> Any:
    """Run all contestants in turns and return the measurements, with ratios within rounds."""
    names = [name for name in (OURS, *asked.peers) if not only or name in only or name in (OURS, asked.peers[0])]
    for name in [name for name in names if not interpreter(name).exists()]:
        print(f"{name}: left out, {interpreter(name)} is not there (--help says how to get it)")
        names.remove(name)
    with tempfile.TemporaryDirectory() as folder:
        job, words = job_of(asked, steps, Path(folder), tiny)
        job["recipe"] = asked.recipe
        found: dict[str, list[Measured]] = {name: [] for name in names}
        peaks, dtype = [], "bfloat16" if BF16 in asked.words else "float32"
        for turn in range(rounds):
            peaks.append(gemm_peak(dtype, tiny))
            for name in names if turn % 2 == 0 else names[::-1]:
                found[name].append(measure(name, job, words, Path(folder), environment))
                told = found[name][-1]
                print(
                    f"round {turn + 1}  {name:35} {told.samples_per_second:7.2f} samples/s  "
                    f"{told.peak_bytes / 2**30:5.2f} GiB  first step after {told.first_step_seconds:5.1f} s",
                    flush=True,
                )
        task = load_recipe(ROOT / "recipes" / f"{asked.recipe}.yaml").task
        floor = flops_per_row(job, task) / statistics.median(peaks)
    reference = found[asked.peers[0]][0].losses
    return {
        "rounds": rounds, "steps": steps, "environment": environment,
        "allocator": allocator.settings(), "machine": this_machine().as_dict(),
        "versions": installed_versions(), "gemm_flops": statistics.median(peaks),
        "floor_samples_per_second": 1 / floor,
        "contestants": {name: summary(found[name], found[OURS], reference) for name in names},
    }  # fmt: skip


def summary(its: list[Measured], ours: list[Measured], reference: list[float]) -> dict[str, Any]:
    """Return one contestant's medians, and the ratio of eyas to it in each round."""
    speed = [our.samples_per_second / its.samples_per_second for our, its in zip(ours, its, strict=True)]
    memory = [our.peak_bytes / its.peak_bytes for our, its in zip(ours, its, strict=True)]
    start = [our.first_step_seconds / its.first_step_seconds for our, its in zip(ours, its, strict=True)]
    return {
        "samples_per_second": statistics.median(each.samples_per_second for each in its),
        "tokens_per_second": statistics.median(each.tokens_per_second for each in its),
        "peak_bytes": statistics.median(each.peak_bytes for each in its),
        "first_step_seconds": statistics.median(each.first_step_seconds for each in its),
        "largest_loss_difference": max(abs(a - b) for a, b in zip(its[0].losses, reference, strict=True)),
        "ours_to_its": {
            "speed": [statistics.median(speed), min(speed)],
            "memory": [statistics.median(memory), max(memory)],
            "first_step": [statistics.median(start), max(start)],
        },
    }


def table(found: dict[str, Any]) -> str:
    """Return a Markdown table; ratios are eyas to the contestant, with the worst round in brackets."""
    lines = [
        "| | samples/s | tokens/s | peak | first step | eyas is faster | eyas's memory | eyas's first step | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, its in found["contestants"].items():
        ratios = [
            f"{median:.2f}× ({worst:.2f})" if name != OURS else ""
            for median, worst in (its["ours_to_its"][key] for key in ("speed", "memory", "first_step"))
        ]
        lines.append(
            f"| {name} | {its['samples_per_second']:.2f} | {its['tokens_per_second']:.0f} "
            f"| {its['peak_bytes'] / 2**30:.2f} GiB | {its['first_step_seconds']:.1f} s | {' | '.join(ratios)} "
            f"| ±{its['largest_loss_difference']:.1e} |"
        )
    share = found["contestants"][OURS]["samples_per_second"] / found["floor_samples_per_second"]
    floor = f"{found['floor_samples_per_second']:.2f} samples/s at {found['gemm_flops'] / 1e9:.0f} GFLOP/s"
    return "\n".join(
        [*lines, "", f"The products of a row alone, nothing shared, allow {floor}: eyas makes {share:.0%} of it."]
    )


def main() -> None:
    """Print the table of one job; `--write` saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=QUESTIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", action="append", default=[], help="run only these contestants and eyas")
    parser.add_argument("--allocator", action="store_true", help="use eyas's allocator for all contestants")
    parser.add_argument("--tiny", action="store_true", help="rehearse a 7B job with a model of some kilobytes")
    parser.add_argument("--write", action="store_true", help="write the figures to benchmarks/results")
    asked = parser.parse_args()
    if asked.tiny and (asked.write or not QUESTIONS[asked.job].shape):
        parser.error("--tiny is for the jobs of 7B, and its figures are not kept")
    environment = allocator.settings() if asked.allocator else {}
    found = compare(QUESTIONS[asked.job], asked.rounds, asked.steps, asked.only, environment, asked.tiny)
    print(table(found))
    if asked.write:
        RESULTS.mkdir(exist_ok=True)
        device = this_machine().device.lower().replace(" ", "-") if has_gpu() else "cpu"
        file = RESULTS / f"{device}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        kept[asked.job + "_allocator" * asked.allocator] = found
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
