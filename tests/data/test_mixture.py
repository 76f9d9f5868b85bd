"""Choice of rows: each row's content decides."""

import random
from collections import Counter
from itertools import islice

import pytest

from eyas.data.mixture import counts, drawn, held_out, interleaved

FINGERPRINTS = [f"row {row}".encode() for row in range(10_000)]


def test_about_the_requested_share_is_held_out():
    assert 900 < sum(held_out(fingerprint, 0.1) for fingerprint in FINGERPRINTS) < 1100


def test_larger_share_holds_out_the_same_rows_and_more():
    small, large = ({f for f in FINGERPRINTS if held_out(f, share)} for share in (0.1, 0.2))

    assert small < large


def test_subset_depends_on_the_seed_and_a_new_row_moves_at_most_one_other():
    first = {FINGERPRINTS[row] for row in drawn(FINGERPRINTS, seed=1)[:500]}
    more = [*FINGERPRINTS, b"one more"]

    assert first == {FINGERPRINTS[row] for row in drawn(FINGERPRINTS, seed=1)[:500]}
    assert len(first - {more[row] for row in drawn(more, seed=1)[:500]}) <= 1
    assert len(first & {FINGERPRINTS[row] for row in drawn(FINGERPRINTS, seed=2)[:500]}) < 60


def test_counts_are_in_proportion_without_repeated_rows_or_without_missing_ones():
    assert counts([1000, 100], [0.5, 0.5], "first_exhausted") == [100, 100]
    assert counts([1000, 100], [0.5, 0.5], "all_exhausted") == [1000, 1000]
    assert counts([1000, 100], [0.9, 0.1], "first_exhausted") == [900, 100]
    assert counts([10, 10, 10], [1, 2, 5], "first_exhausted") == [2, 4, 10]


@pytest.mark.parametrize("seed", range(20))
def test_every_source_gives_its_number_of_rows(seed):
    generator = random.Random(seed)
    wanted = [generator.randrange(1, 200) for _ in range(generator.randrange(1, 6))]

    assert Counter(islice(interleaved(wanted), sum(wanted))) == dict(enumerate(wanted))


def test_every_prefix_of_a_mixture_has_the_same_shares():
    taken = list(islice(interleaved([0.7, 0.2, 0.1]), 1000))

    for length in (10, 100, 1000):
        assert [taken[:length].count(source) for source in range(3)] == [length * 7 // 10, length // 5, length // 10]
