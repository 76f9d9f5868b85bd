"""Loss of small updates to rounding, and the smallest detected merge error, on SmolLM2-135M-Instruct.

    python benchmarks/merging.py [--steps 1 4] [--rows 8]

Trains LoRA (r 16, all linear layers, learning rate 2e-4, two rows a step) on the packaged chats in float32; the base's
weights are numbers of bfloat16. After each of the steps it prints two tables on held-out rows.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from eyas.export.parity import parity_between, predictions
from eyas.export.refusals import TIMES_NOISE
from eyas.export.rounding import Rounder, computing_with, nearest, nudged, stochastic, with_random_signs
from eyas.export.update import compare_update, factors
from eyas.model.quantization import torch_dtype
from eyas.recipe.adapter import Lora

MODEL, ROWS = "demo/smollm2-135m-instruct", Path("demo/sentences")
ERRORS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
LAYER = "model.layers.15.mlp.up_proj"


def encoded(tokenizer: Any, file: Path, rows: int) -> list[dict[str, Any]]:
    """Return rows as token ids, with labels on the answer only."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines()[:rows]:
        row = json.loads(line)
        messages = row.get("messages") or row["prompt"] + row["completion"]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        labels = ids.clone()
        labels[:, : len(asked)] = -100
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found


def loss(logits: list[Any], rows: list[dict[str, Any]]) -> float:
    """Return the mean loss of the answers' tokens in nats."""
    scores = torch.cat([of_row[:-1] for of_row in logits])
    return float(torch.nn.functional.cross_entropy(scores, torch.cat([row["labels"][0, 1:] for row in rows])))


def main() -> None:
    """Train, and print both tables after each of the steps."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rows", type=int, default=8)
    asked = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    train = encoded(tokenizer, ROWS / "chat_train.jsonl", 64)
    rows = encoded(tokenizer, ROWS / "chat_test.jsonl", asked.rows)
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    draw = random.Random(0)
    for step in range(1, max(asked.steps) + 1):
        model.train()
        optimizer.zero_grad()
        for row in draw.choices(train, k=2):
            (model(**row).loss / 2).backward()
        optimizer.step()
        if step in asked.steps:
            print(f"\nafter {step} steps")
            _print_tables(model.eval(), rows)


def _print_tables(model: Any, rows: list[dict[str, Any]]) -> None:
    probes = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    tuned = predictions(model, probes)
    with model.disable_adapter():
        base = predictions(model, probes)
    updates = {
        name: layer.get_delta_weight("default").detach()
        for name, layer in model.base_model.model.named_modules()
        if hasattr(layer, "lora_A")
    }
    moved = parity_between(tuned, base).kl_per_token
    print(f"loss {loss(base, rows):.4f} -> {loss(tuned, rows):.4f}; training moved the base by a KL of {moved:.1e}\n")

    def with_weights(change: Any) -> list[Any]:
        """Return the base's predictions with some changes to base + update."""

        def merged(name: str, tensor: Any) -> Any:
            path = name.removeprefix("base_model.model.").removesuffix(".base_layer.weight")
            return change(path, tensor, tensor + updates[path]) if path in updates else tensor

        with model.disable_adapter(), computing_with(model, merged):
            return predictions(model, probes)

    print(
        "| dtype | rounding | KL | of training's | of a random change as large | top-1 | of the loss gained, kept |\n"
        "|---|---|---|---|---|---|---|"
    )
    for dtype in ("bfloat16", "float16"):
        for rounding in ("nearest", "stochastic"):
            wanted = torch_dtype(dtype)

            def rounded(name: str, _base: Any, weight: Any, how: str = rounding, to: Any = wanted) -> Any:
                return nearest(weight, to) if how == "nearest" else stochastic(weight, to, name, 0)

            def at_random(name: str, base: Any, weight: Any, of: Any = rounded) -> Any:
                return with_random_signs(lambda name, weight: of(name, base, weight), 0)(name, weight)

            found, random_kl = with_weights(rounded), parity_between(tuned, with_weights(at_random)).kl_per_token
            parity, gained = parity_between(tuned, found), loss(base, rows) - loss(tuned, rows)
            kept = (loss(base, rows) - loss(found, rows)) / gained
            print(
                f"| {dtype} | {rounding} | {parity.kl_per_token:.1e} | {parity.kl_per_token / moved:.2g} "
                f"| {random_kl:.1e} | {parity.top1_agreement:.1%} | {kept:.0%} |"
            )
    _print_errors(model, tuned, probes, updates, with_weights)


def _print_errors(model: Any, tuned: list[Any], probes: Any, updates: dict[str, Any], with_weights: Any) -> None:
    with computing_with(model, nudged):
        noise = parity_between(tuned, predictions(model, probes)).kl_per_token
    layer = model.base_model.model.get_submodule(LAYER)
    a, b = (part["default"].weight.detach() for part in (layer.lora_A, layer.lora_B))
    wanted = factors(Lora(method="lora", r=16, lora_alpha=32), LAYER, {"lora_A": a, "lora_B": b})
    before, update = layer.base_layer.weight.detach(), updates[LAYER]
    print(
        f"\n{LAYER}; float32's own rounding: KL {noise:.0e}\n"
        "| update off by | weights beyond rounding | KL | over float32's | found by |"
    )
    print("|---|---|---|---|---|")
    for error in (0.0, *ERRORS):
        after = before + update * (1 + error)
        seen = compare_update(LAYER, before, after, wanted, Rounder("float32", None, 0))
        found = with_weights(lambda path, _base, weight, wrong=after: wrong if path == LAYER else weight)
        kl = parity_between(tuned, found).kl_per_token
        by = [
            name for name, is_found in (("weights", seen.beyond_rounding), ("KL", kl > TIMES_NOISE * noise)) if is_found
        ]
        print(f"| {error:.0e} | {seen.beyond_rounding:,} | {kl:.1e} | {kl / noise:.1f} | {', '.join(by) or 'no'} |")


if __name__ == "__main__":
    main()
