"""Cost of sealing, as a share of a run's time at the default checkpoint interval.

python benchmarks/sealing.py   (after `eyas demo`; SmolLM2-135M with LoRA and in full, some minutes on two CPU cores)
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
METHODS = {
    "LoRA": ["quantization=null"],
    "full": ["quantization=null", "adapter=null", "training.learning_rate=1e-5"],
}
STEPS, SAVES = 6, 3


def measured(words: list[str], folder: Path) -> dict[str, float]:
    """Train six steps with three checkpoints; return the seconds of a step and a seal, and the overhead."""
    run = RunDirectory(folder)
    words = [
        *words,
        f"run_directory={run.path}",
        f"training.max_steps={STEPS}",
        f"training.save_steps={STEPS // SAVES}",
    ]
    done = subprocess.run(
        [sys.executable, "launch/train.py", RECIPE, *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    seals = [float(seconds) for seconds in re.findall(r"sealed in (\S+) s", done.stdout + done.stderr)]
    assert len(seals) == SAVES, done.stderr[-2000:]
    step = (run.metric_lines()[-1]["train_runtime"] - sum(seals)) / STEPS
    interval = load_recipe(RECIPE).training.save_steps
    seal = statistics.median(seals)
    return {
        "step_seconds": step,
        "seal_seconds": seal,
        "save_steps": interval,
        "share": seal / (interval * step + seal),
    }


def main() -> None:
    """Print one line per method, and JSON with the figures."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for method, words in METHODS.items():
            each = found[method] = measured(words, Path(folder) / method)
            print(
                f"{method}: a step {each['step_seconds']:.2f} s, a seal {each['seal_seconds']:.2f} s; "
                f"every {each['save_steps']} steps that is {each['share']:.3%} of the wall time"
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
