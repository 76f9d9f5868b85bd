"""Trainable parameters of the shipped adapters, counted from configs on the meta device.

python benchmarks/parameter_counts.py [--write docs/performance.md]
"""

import argparse
import tempfile
from pathlib import Path

from between_markers import put
from transformers import DistilBertConfig, FalconConfig

from eyas.model.adapter import resolve
from eyas.model.load import empty_model, load_config
from eyas.recipe import load_recipe
from eyas.tasks import TASKS

ROOT = Path(__file__).parent.parent
# The library's defaults are those of tiiuae/falcon-7b and distilbert-base-uncased.
JOBS = [
    ("falcon7b_qlora", FalconConfig()),
    ("distilbert_lora_yelp", DistilBertConfig()),
    ("distilbert_lora_sst2", DistilBertConfig()),
]


def row(name: str, config: object) -> str:
    """Return the table's line for one recipe on its real architecture."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)  # type: ignore[attr-defined]
        recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", [f"model.name={folder}"])
        task = TASKS[recipe.task]
        empty = empty_model(load_config(recipe.model), task.auto_model)
    count = resolve(recipe.adapter, task.peft_task_type, empty).count
    layers = ", ".join(recipe.adapter.target_modules)
    if recipe.adapter.modules_to_save:
        layers += f"; {', '.join(recipe.adapter.modules_to_save)} in full"
    share = count.trainable / count.total
    return f"| `{name}` | {recipe.adapter.r} | {layers} | {count.trainable:,} | {count.total:,} | {share:.2%} |"


def table() -> str:
    """Return the table in the documentation."""
    header = "| recipe | r | layers | trainable | all, with the adapter | share |\n|---|---|---|---|---|---|"
    return "\n".join([header, *(row(name, config) for name, config in JOBS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the table between its markers in this file")
    given = parser.parse_args()
    print(table())
    if given.write:
        put(given.write, "parameters", table())


if __name__ == "__main__":
    main()
