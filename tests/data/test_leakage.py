"""Rows on both sides are found, each with its training row, and no others."""

import random
import sys
import time
import tracemalloc
from itertools import accumulate

import pytest

from eyas.data.fingerprints import fingerprint, normalized
from eyas.data.leakage import Overlap, overlap
from eyas.errors import PreflightError

LETTERS = "etaoinshrdlu"


@pytest.fixture
def writer():
    return Writer(seed=7)


class Writer:
    """Rows of made-up words, some of them common as in a language, and small changes to a row."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.words = ["".join(self.random.choices(LETTERS, k=self.random.randint(2, 9))) for _ in range(5000)]
        self.frequencies = list(accumulate(1 / rank for rank in range(3, 5003)))

    def rows(self, count, words=30):
        return [" ".join(self.random.choices(self.words, cum_weights=self.frequencies, k=words)) for _ in range(count)]

    def restyled(self, row):
        return f"«{row.title().replace(' ', ',  ', 3)}!»"

    def edited(self, row, words=1):
        edited = row.split()
        for place in self.random.sample(range(len(edited)), words):
            edited[place] = "quixotic"
        return " ".join(edited)

    def plant(self, change, train, evaluation, rows):
        """Put a changed training row into each of these held-out rows. Return the pairs."""
        pairs = list(zip(self.random.sample(range(len(train)), len(rows)), rows, strict=True))
        for source, row in pairs:
            evaluation[row] = change(train[source])
        return pairs


def test_all_planted_rows_and_no_others_are_found_with_their_training_row(writer):
    train, evaluation = writer.rows(2000), writer.rows(2000)
    exact = writer.plant(str, train, evaluation, range(0, 2000, 100))
    restyled = writer.plant(writer.restyled, train, evaluation, range(50, 2000, 100))

    assert len(exact) == len(restyled) == 20
    assert overlap(train, evaluation) == Overlap(exact, restyled, None)


@pytest.mark.parametrize(("words", "threshold"), [(1, 0.8), (2, 0.75), (4, 0.5)])
def test_row_of_thirty_words_with_a_few_changed_is_near(writer, words, threshold):
    train, evaluation = writer.rows(2000), writer.rows(1000)
    edited = writer.plant(lambda row: writer.edited(row, words), train, evaluation, range(0, 1000, 5))

    found = overlap(train, evaluation, threshold)

    assert found.exact == found.normalized == []
    assert set(found.near) <= set(edited)
    assert len(found.near) >= 0.95 * len(edited) == 190


def test_unrelated_rows_are_not_near(writer):
    assert overlap(writer.rows(2000), writer.rows(500), near_threshold=0.5) == Overlap([], [], [])


def test_the_threshold_decides(writer):
    (row,) = writer.rows(1)
    half = " ".join(row.split()[:15] + writer.rows(1)[0].split()[:15])

    assert overlap([row], [half], near_threshold=0.8).near == []
    assert overlap([row], [half], near_threshold=0.2).near == [(0, 0)]


def test_threshold_of_one_finds_only_another_order_of_the_same_pieces():
    assert overlap(["aaaaaa" * 2, "abcdef"], ["aaaaaa" * 3, "abcdeg"], near_threshold=1.0).near == [(0, 0)]


def test_held_out_row_is_reported_once_by_its_closest_kind_and_first_training_row(writer):
    (row,) = writer.rows(1)
    train = [writer.edited(row), writer.restyled(row), row, row]

    assert overlap(train, [row, row], near_threshold=0.8) == Overlap([(2, 0), (2, 1)], [], [])
    assert overlap(train[:2], [row, row], near_threshold=0.8) == Overlap([], [(1, 0), (1, 1)], [])
    assert overlap(train[:1] * 2, [row, row], near_threshold=0.8) == Overlap([], [], [(0, 0), (0, 1)])


def test_pairs_are_in_the_order_of_the_held_out_rows():
    assert overlap(["a", "b", "c"], ["c", "b", "a"]).exact == [(2, 0), (1, 1), (0, 2)]


def test_positions_continue_over_all_batches_of_an_iterator(writer):
    train, evaluation = writer.rows(1500, words=4), writer.rows(1500, words=4)
    evaluation[1400] = train[1300]
    evaluation[1450] = writer.restyled(train[1350])

    found = overlap(iter(train), iter(evaluation), near_threshold=0.95)

    assert (1300, 1400) in found.exact and (1350, 1450) in found.normalized


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Fine tuning", "fine  tuning\n"),
        ("Yes, it is.", "yes it is"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}\N{FULLWIDTH DIGIT ONE}", "a1"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"),
        ("Stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE"),
        ("«Ça va»", "ça va"),
        ("well-known", "well known"),
        ("a\N{NO-BREAK SPACE}b", "a b"),
        ("**bold**", "bold"),
        ("3 - 4", "3 \N{MINUS SIGN} 4"),
        ("cut \ud800", "cut"),  # a lone surrogate
    ],
)
def test_same_words_share_a_fingerprint(one, other):
    assert normalized(one) == normalized(other)
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == 16
    assert overlap([one], [other]) == Overlap([], [(0, 0)], None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("together", "to gether"),
        ("What is 12 - 4?", "What is 12 * 4?"),
        ("6/3", "6-3"),
        ("1 + 1", "1 = 1"),
        ("thanks 🙂", "thanks 🙁"),
        ("कि", "की"),  # two words that differ in a vowel sign
        ("résumé", "resume"),
    ],
)
def test_other_words_have_another_fingerprint(one, other):
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(("one", "other"), [("", ""), (" \n", " \n"), ("", " "), ("...", "?!")])
def test_blank_rows_never_match(one, other):
    assert overlap([one, "word"], [other], near_threshold=0.1) == Overlap([], [], [])


def test_texts_of_neither_side_stay_in_memory(writer):
    def rows():
        return (f"{row} " + "x" * 2000 for row in range(5000))

    tracemalloc.start()
    found = overlap(rows(), rows())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(found.exact) == 5000
    assert peak_bytes < 5_000_000 < 2000 * 5000


def test_near_rows_need_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)

    assert overlap(["a"], ["a"]).exact == [(0, 0)]
    with pytest.raises(PreflightError, match=r"eyas\[leakage\]"):
        overlap(["a"], ["a"], near_threshold=0.8)


@pytest.mark.slow
@pytest.mark.alone
def test_hundred_thousand_rows_take_less_than_a_minute(writer):
    train, evaluation = writer.rows(100_000), writer.rows(10_000)
    exact = writer.plant(str, train, evaluation, range(0, 10_000, 100))
    restyled = writer.plant(writer.restyled, train, evaluation, range(33, 10_000, 100))
    edited = writer.plant(writer.edited, train, evaluation, range(66, 10_000, 100))

    started = time.perf_counter()
    found = overlap(iter(train), iter(evaluation), near_threshold=0.8)
    seconds = time.perf_counter() - started

    assert (found.exact, found.normalized) == (exact, restyled)
    assert set(found.near) <= set(edited)
    assert len(found.near) >= 95
    assert seconds < 60
