"""Plot of the loss curve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyas.extras import require


def plot_loss(lines: Sequence[dict[str, Any]], title: str, file: Path) -> None:
    """Plot training and evaluation loss over optimizer steps, from the lines of metrics.jsonl."""
    require("matplotlib", "report")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for key, label in (("loss", "training"), ("eval_loss", "held out")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats)", ylim=(0, None))
    axes.grid(alpha=0.3)
    if axes.get_lines():
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no loss was logged; lower training.logging_steps", transform=axes.transAxes, ha="center")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
