"""Loss curve of a run, with and without logged losses."""

import warnings

import pytest

from eyas.evaluation.plots import plot_loss

PNG = b"\x89PNG"


@pytest.mark.parametrize("lines", [[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 1.7}], []])
def test_a_curve_is_drawn_without_a_warning_even_if_nothing_was_logged(lines, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_loss(lines, "a run", tmp_path / "loss.png")

    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
