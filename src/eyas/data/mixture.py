"""Choice and order of rows: held out, drawn and mixed. Each choice depends on a row's content or a seed."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Literal


def held_out(fingerprint: bytes, share: float) -> bool:
    """Return whether a row is held out. Its own hash decides, so that no other row can move it."""
    return int.from_bytes(_hashed(b"held out", fingerprint)) / 2**64 < share


def drawn(fingerprints: Sequence[bytes], seed: int) -> list[int]:
    """Return all rows in the order in which they are drawn for a subset: by their hash with the seed."""
    keys = [_hashed(str(seed).encode(), fingerprint) for fingerprint in fingerprints]
    return sorted(range(len(keys)), key=lambda row: (keys[row], row))


def counts(
    available: Sequence[int], weights: Sequence[float], strategy: Literal["first_exhausted", "all_exhausted"]
) -> list[int]:
    """Return the number of rows of each source in a mixture, in proportion to the weights.

    `first_exhausted` repeats no row; `all_exhausted` leaves none out, and repeats those of the smaller sources.
    """
    whole = [rows * sum(weights) / weight for rows, weight in zip(available, weights, strict=True)]
    total = min(whole) if strategy == "first_exhausted" else max(whole)
    # Rounded, a count may miss the row that makes its source the one that runs out.
    return [max(round(total * weight / sum(weights)), 1) for weight in weights]


def interleaved(wanted: Sequence[float]) -> Iterator[int]:
    """Yield indices of sources without end, always of the source furthest behind its share.

    So every prefix is mixed in the same shares. The caller takes as many as there are rows.
    """
    total, taken = sum(wanted), [0] * len(wanted)
    for step in count(1):
        behind = [step * share / total - done for share, done in zip(wanted, taken, strict=True)]
        source = behind.index(max(behind))
        taken[source] += 1
        yield source


def _hashed(salt: bytes, fingerprint: bytes) -> bytes:
    return hashlib.blake2b(fingerprint, digest_size=8, key=salt).digest()
