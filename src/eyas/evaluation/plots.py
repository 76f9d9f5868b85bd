"""Plots of a report: the loss curve, and the scores of each model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.evaluation.compare import Comparison
from eyas.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 0.8
"""Width of a measure's bars, all models together; measures are 1 apart."""


def plot_loss(lines: Sequence[dict[str, Any]], title: str, file: Path) -> None:
    """Plot training and evaluation loss over optimizer steps, from the lines of metrics.jsonl."""
    require("matplotlib", "report")
    from matplotlib.ticker import MaxNLocator

    with _figure(file, [1]) as (axes,):
        for key, label in (("loss", "training"), ("eval_loss", "held out")):
            points = [(line["step"], line[key]) for line in lines if key in line]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats)", ylim=(0, None))
        if axes.get_lines():
            axes.legend()
        else:
            axes.text(
                0.5, 0.5, "no loss was logged; lower training.logging_steps", transform=axes.transAxes, ha="center"
            )


def plot_scores(comparison: Comparison, title: str, file: Path) -> None:
    """Plot each measure of each model as a bar with its 95 % interval; a dashed line is the majority class.

    The loss has an axis of its own, in nats; the other measures are shares.
    """
    loss, *shares = comparison.scores
    groups = [[loss], shares] if shares else [[loss]]
    with _figure(file, [len(group) for group in groups]) as axes:
        for one, measures in zip(axes, groups, strict=True):
            _bars(one, comparison, measures)
        axes[0].set(ylabel=loss.partition("(")[2].removesuffix(")"))
        if shares:
            axes[1].set(ylim=(0, 1.05))
            axes[1].yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes[0].figure.suptitle(f"{title}, {comparison.rows} {comparison.kind} rows, 95 % intervals")


def _bars(axes: "Axes", comparison: Comparison, measures: Sequence[str]) -> None:
    models = list(comparison.scores[measures[0]])
    width = BAR / len(models)
    for number, model in enumerate(models):
        scores = [comparison.scores[measure][model] for measure in measures]
        centers = [place + (number - (len(models) - 1) / 2) * width for place in range(len(measures))]
        ends = [score.interval or (score.value, score.value) for score in scores]
        errors = [
            [score.value - low for score, (low, _) in zip(scores, ends, strict=True)],
            [high - score.value for score, (_, high) in zip(scores, ends, strict=True)],
        ]
        axes.bar(centers, [score.value for score in scores], width * 0.9, yerr=errors, capsize=3, label=model)
    constant = {
        place: comparison.majority[name]["score"] for place, name in enumerate(measures) if name in comparison.majority
    }
    if constant:
        edges = [place - BAR / 2 for place in constant], [place + BAR / 2 for place in constant]
        axes.hlines(constant.values(), *edges, linestyles="dashed", colors="black", label="majority class")
    axes.set_xticks(range(len(measures)), [measure.partition(" (nats")[0] for measure in measures])


@contextmanager
def _figure(file: Path, widths: Sequence[int]) -> "Iterator[list[Axes]]":
    """Yield axes side by side, of these relative widths, and save the figure as PNG."""
    require("matplotlib", "report")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(widths), figsize=(8, 4), layout="constrained", squeeze=False, width_ratios=widths
    )
    for one in axes[0]:
        one.grid(alpha=0.3)
        one.set_axisbelow(True)
    yield list(axes[0])
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
