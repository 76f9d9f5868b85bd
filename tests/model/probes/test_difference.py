"""Rule of the probes: what counts as rounding, and that NaN never does."""

import math

import pytest
import torch

from eyas.model.probes.difference import largest, nearness, relative, smallest, tells, within, worst

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("difference", "tolerance", "passes"),
    [(1e-6, 1e-5, True), (1e-5, 1e-5, True), (2e-5, 1e-5, False), (NAN, 1e-5, False), (1e-6, NAN, False),
     (INF, INF, False), (1e-6, INF, False), (NAN, NAN, False), (INF, 1e-5, False)],
)  # fmt: skip
def test_nan_and_infinity_are_never_rounding(difference, tolerance, passes):
    assert within(difference, tolerance) is passes


@pytest.mark.parametrize(
    ("reaction", "tolerance", "can"),
    [(1e-4, 1e-5, True), (9e-5, 1e-5, False), (NAN, 1e-5, False), (INF, 1e-5, False), (1, NAN, False)],
)  # fmt: skip
def test_a_probe_tells_only_by_a_finite_reaction_ten_times_its_tolerance(reaction, tolerance, can):
    assert tells(reaction, tolerance) is can


@pytest.mark.parametrize("values", [[NAN, 1.0], [1.0, NAN], [1.0, NAN, 2.0]])
def test_no_nan_is_passed_over_wherever_it_stands(values):
    assert math.isnan(largest(values)) and math.isnan(smallest(values))
    assert largest([1.0, 3.0, 2.0]) == 3 and smallest([2.0, 1.0, 3.0]) == 1


def test_a_difference_is_relative_to_the_length_and_that_of_equal_zeros_is_zero():
    ones, others = (
        torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[3.0, 4.5], [0.0, 0.0], [0.0, 0.0]]),
    )

    found = relative(ones, others)

    assert found[0] == pytest.approx(0.5 / math.hypot(3, 4.5)) and found[1] == 0 and found[2] == INF
    assert relative(torch.tensor([NAN]), torch.tensor([1.0])).isnan()


def test_the_worst_is_the_closest_to_its_tolerance_and_nan_before_all():
    assert worst({"a": (1e-6, 1e-5), "b": (2e-3, 1e-2), "c": (1e-2, 1.0)}) == "b"
    assert worst({"a": (2e-5, 1e-5), "b": (NAN, 1e-2)}) == "b"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_rounding_is_near_and_one_percent_is_not(dtype):
    exact = torch.randn(4096, generator=torch.Generator().manual_seed(0)).double()
    theirs, ours = exact.to(dtype), (exact * (1 + 2**-20)).to(dtype)

    assert within(*nearness([ours], [theirs], [exact]))
    assert not within(*nearness([ours, (1.01 * exact).to(dtype)], [theirs, theirs], [exact, exact]))
    assert not within(*nearness([ours, NAN * ours], [theirs, theirs], [exact, exact]))
