"""Bounds on the cost of rounding, where the update itself survives."""

import pytest

from eyas.export.parity import Parity
from eyas.export.proof import Proof
from eyas.export.refusals import TIMES_RANDOM, ArtifactRefused, refuse_lost_update
from eyas.export.update import LayerUpdate


def parity(kl, median=None):
    return Parity(kl, kl if median is None else median, 0.0, 1.0, 100, 0)


def proof(rounded, kept=0.6):
    """Return a proof in which training and a random change each have a KL of 1e-3."""
    update = LayerUpdate("w", 0.0, 0, 1.0, "nearest", kept)
    changed = parity(1e-3)
    return Proof("bfloat16", parity(0.0), parity(0.0), changed, parity(0.0), rounded, changed, [update], None)


@pytest.mark.parametrize("rounded", [parity(1e-3 * (TIMES_RANDOM - 1)), parity(1.0, median=1e-3 * (TIMES_RANDOM - 1))])
def test_rounding_that_costs_as_much_as_a_random_change_is_released(rounded):
    refuse_lost_update("merged", proof(rounded))

    with pytest.raises(ArtifactRefused, match="The saved weights hold 40% of the update"):
        refuse_lost_update("merged", proof(rounded, kept=0.4))


@pytest.mark.parametrize("rounded", [parity(1e-3 * (TIMES_RANDOM + 1)), parity(float("nan"))])
def test_rounding_that_costs_far_more_than_a_random_change_is_refused(rounded):
    with pytest.raises(ArtifactRefused, match=r"a random change as large as rounding's moves it by 1\.00e-03"):
        refuse_lost_update("merged", proof(rounded))
