"""The rule of the probes: rounding passes, and NaN never does."""

import math

import pytest
import torch

from eyas.model.probes.difference import (
    Difference,
    largest,
    nearness,
    relative,
    rounding,
    smallest,
    tells,
    try_mode,
    within,
    worst,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("difference", "tolerance", "passes"),
    [(1e-6, 1e-5, True), (1e-5, 1e-5, True), (2e-5, 1e-5, False), (NAN, 1e-5, False), (1e-6, NAN, False),
     (INF, INF, False), (1e-6, INF, False), (NAN, NAN, False), (INF, 1e-5, False)],
)  # fmt: skip
def test_nan_and_infinity_are_never_rounding(difference, tolerance, passes):
    assert within(difference, tolerance) is Difference(difference, tolerance).is_rounding is passes


def test_difference_is_printed_with_its_tolerance():
    assert Difference(1.234e-6, 1e-5).text() == "max difference 1e-06, tolerance 1e-05"


def test_tolerance_is_the_largest_of_three_and_nan_where_padding_is():
    assert rounding(torch.float32) == 1e-5
    assert rounding(torch.bfloat16) == 2 * 2**-7 and rounding(torch.bfloat16, digits=4) == 4 * 2**-7
    assert rounding(torch.float32, [1e-6, 3e-5]) == pytest.approx(1.2e-4)
    assert math.isnan(rounding(torch.float32, [1e-6, NAN]))


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError])
def test_refused_mode_has_no_result_and_is_undone(error):
    undone = []

    def refuse():
        raise error

    assert try_mode(refuse, lambda: undone.append(1), refused=INF) == INF
    assert try_mode(lambda: 0.5, lambda: undone.append(2), refused=INF) == 0.5
    assert undone == [1, 2]


@pytest.mark.parametrize(
    ("reaction", "tolerance", "can"),
    [(1e-4, 1e-5, True), (9e-5, 1e-5, False), (NAN, 1e-5, False), (INF, 1e-5, False), (1, NAN, False)],
)  # fmt: skip
def test_probe_needs_a_finite_reaction_of_ten_tolerances(reaction, tolerance, can):
    assert tells(reaction, tolerance) is can


@pytest.mark.parametrize("values", [[NAN, 1.0], [1.0, NAN], [1.0, NAN, 2.0]])
def test_nan_is_found_in_every_place(values):
    assert math.isnan(largest(values)) and math.isnan(smallest(values))
    assert largest([1.0, 3.0, 2.0]) == 3 and smallest([2.0, 1.0, 3.0]) == 1


def test_difference_is_relative_to_the_length_and_zero_for_equal_zeros():
    ones, others = (
        torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[3.0, 4.5], [0.0, 0.0], [0.0, 0.0]]),
    )

    lengths = relative(ones, others)

    assert lengths[0] == pytest.approx(0.5 / math.hypot(3, 4.5)) and lengths[1] == 0 and lengths[2] == INF
    assert relative(torch.tensor([NAN]), torch.tensor([1.0])).isnan()


def test_worst_is_the_closest_to_its_tolerance_and_nan_first():
    assert worst({"a": (1e-6, 1e-5), "b": (2e-3, 1e-2), "c": (1e-2, 1.0)}) == "b"
    assert worst({"a": (2e-5, 1e-5), "b": (NAN, 1e-2)}) == "b"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_rounding_is_near_and_one_percent_is_not(dtype):
    exact = torch.randn(4096, generator=torch.Generator().manual_seed(0)).double()
    theirs, ours = exact.to(dtype), (exact * (1 + 2**-20)).to(dtype)

    assert within(*nearness([ours], [theirs], [exact]))
    assert not within(*nearness([ours, (1.01 * exact).to(dtype)], [theirs, theirs], [exact, exact]))
    assert not within(*nearness([ours, NAN * ours], [theirs, theirs], [exact, exact]))
