"""Plots of a report, read back from the figure and from the file."""

import warnings

import pytest
from matplotlib import pyplot

from eyas.evaluation import plots
from eyas.evaluation.compare import Comparison, Score
from eyas.evaluation.measures import LOSSES

PNG = b"\x89PNG"
LOSS = LOSSES["tokens"]
BASE, TUNED = Score(0.25, (0.125, 0.5), True), Score(0.75, (0.5, 0.875), True)
COMPARISON = Comparison(
    8,
    "held-out",
    {
        LOSS: {"base": Score(1.5, (1.25, 2.0), False), "tuned": Score(0.5, None, False)},
        "source": {"base": BASE, "tuned": TUNED},
        "valid JSON": {"base": BASE, "tuned": TUNED},
    },
    {},
    {"source": {"answer": "movie", "score": 0.375}},
)


@pytest.fixture
def figure(monkeypatch):
    """Return the last figure that was drawn, still open."""
    monkeypatch.setattr(pyplot, "close", lambda _: None)
    yield pyplot.gcf
    monkeypatch.undo()
    pyplot.close("all")


@pytest.mark.parametrize("lines", [[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 1.7}], []])
def test_a_curve_is_drawn_without_a_warning_even_if_nothing_was_logged(lines, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_loss(lines, "a run", tmp_path / "loss.png")

    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)


def test_scores_are_bars_with_their_intervals_and_the_majority_class(figure, tmp_path):
    plots.plot_scores(COMPARISON, "a run", tmp_path / "scores.png")

    loss, shares = figure().axes
    assert [bar.get_height() for bar in loss.patches] == [1.5, 0.5]
    assert [bar.get_height() for bar in shares.patches] == [0.25, 0.25, 0.75, 0.75]
    intervals, (majority,) = shares.collections[:-1], shares.collections[-1].get_segments()
    ends = [tuple(segment[:, 1]) for lines in intervals for segment in lines.get_segments()]
    assert ends == [(0.125, 0.5)] * 2 + [(0.5, 0.875)] * 2
    assert tuple(majority[:, 1]) == (0.375, 0.375) and majority[0, 0] < 0 < majority[1, 0]
    assert [text.get_text() for text in shares.get_xticklabels()] == ["source", "valid JSON"]
    assert (tmp_path / "scores.png").read_bytes().startswith(PNG)


def test_a_run_with_a_loss_alone_has_one_axis(figure, tmp_path):
    plots.plot_scores(
        Comparison(8, "held-out", {LOSS: COMPARISON.scores[LOSS]}, {}, {}), "a run", tmp_path / "scores.png"
    )

    (loss,) = figure().axes
    assert [bar.get_height() for bar in loss.patches] == [1.5, 0.5]
