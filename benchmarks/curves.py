"""Do the speed optimizations change what a run learns? The quickstart's QLoRA job with all of them and with none.

python benchmarks/curves.py [--steps 200] [--write]   (after `eyas demo`; about half an hour on two CPU cores)

Both runs have the same seed, rows and order. In exact arithmetic they would be one curve; rounding differs, and what it
does to a weight is what later losses differ by. Exits with 1 where a final measure of one lies outside the interval of
the other. `--write` keeps the figures and a picture in benchmarks/results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from eyas.cli.open_run import open_run
from eyas.evaluation.compare import Score, compare
from eyas.evaluation.evaluate import evaluate
from eyas.inference.load import load
from eyas.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RECIPE = "recipes/smollm2_qlora_quickstart.yaml"
RUNS = {
    "all optimizations": [],
    "none": ["speed.compact_batches=false", "speed.fused_lora=false", "speed.dequantized_gib=0"],
}


def trained(words: list[str], steps: int, folder: Path) -> tuple[list[float], dict[str, Score]]:
    """Train one run; return the loss of each step, and its measures on the held-out rows."""
    words = [*words, f"training.max_steps={steps}", "training.logging_steps=1", f"run_directory={folder}"]
    subprocess.run([Path(sys.executable).with_name("eyas"), "train", RECIPE, *words], cwd=ROOT, check=True)
    losses = [line["loss"] for line in RunDirectory(folder).metric_lines() if "loss" in line]
    opened = open_run(folder)
    model = load(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, "tuned")
    records = {"tuned": evaluate(model, opened.tokenizer, opened.recipe, opened.splits)}
    return losses, {measure: found["tuned"] for measure, found in compare(records, {}).scores.items()}


def draw(curves: dict[str, list[float]], file: Path) -> None:
    """Plot both curves, and their difference below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, figsize=(7, 5), layout="constrained", sharex=True, height_ratios=(3, 1))
    for (name, losses), style in zip(curves.items(), ("-", ":"), strict=True):
        above.plot(range(1, len(losses) + 1), losses, style, label=name)
    ours, plain = curves.values()
    below.plot(range(1, len(ours) + 1), [a - b for a, b in zip(ours, plain, strict=True)])
    above.set(ylabel="loss (nats)", ylim=(0, None), title="the quickstart's QLoRA job")
    below.set(ylabel="difference", xlabel="optimizer step")
    above.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Train both, print their differences, and fail if these exceed chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="write figures and plot to benchmarks/results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {name: trained(words, given.steps, Path(folder) / name) for name, words in RUNS.items()}
    curves = {name: losses for name, (losses, _) in outcomes.items()}
    (ours, measures), (plain, plain_measures) = outcomes.values()
    apart = [abs(a - b) for a, b in zip(ours, plain, strict=True)]
    print(f"{given.steps} steps: losses are {max(apart):.1e} apart at most, {sum(apart) / len(apart):.1e} on average")
    outside = []
    for measure, found in measures.items():
        other = plain_measures[measure]
        print(f"{measure}: all optimizations {found.text(False)}, none {other.text(False)}")
        if not (other.low <= found.value <= other.high and found.low <= other.value <= found.high):
            outside.append(measure)
    if given.write:
        RESULTS.mkdir(exist_ok=True)
        kept: dict[str, Any] = {
            "steps": given.steps,
            "largest_difference": max(apart),
            "mean_difference": sum(apart) / len(apart),
            "losses": curves,
            "measures": {
                run: {name: vars(score) for name, score in each.items()} for run, (_, each) in outcomes.items()
            },
        }
        (RESULTS / "curves.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        draw(curves, RESULTS / "curves.png")
    if outside:
        sys.exit(f"outside the other's interval: {', '.join(outside)}")


if __name__ == "__main__":
    main()
