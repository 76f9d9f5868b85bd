"""Search for the example of a document in a batch."""

from collections import defaultdict

from eyas.data.masks import IGNORED
from eyas.data.row_spec import TokenSequence
from eyas.data.splits import Split
from eyas.data.tables import fingerprint_of

Origin = tuple[int, int]
"""Index of an example, and of the sequence within it."""


class Origins:
    """Examples of a split by the tokens of their sequences, for a batch does not record its rows."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._by_fingerprint: defaultdict[int, list[Origin]] = defaultdict(list)
        fingerprints = split.examples.with_format("arrow")[:]["fingerprints"].to_pylist()
        for example, of_sequences in enumerate(fingerprints):
            for position, fingerprint in enumerate(of_sequences):
                self._by_fingerprint[fingerprint].append((example, position))

    def of(self, sequence: TokenSequence) -> list[Origin]:
        """Return every sequence of an example with these tokens and labels. Several rows may be equal.

        The first label may be ignored in the batch: a flat batch trains no document's first token.
        """
        candidates = self._by_fingerprint.get(fingerprint_of(sequence.ids), [])
        return [origin for origin in candidates if _may_become(self._prepared(*origin), sequence)]

    def _prepared(self, example: int, position: int) -> TokenSequence:
        return self._split.spec.sequences(self._split.examples[example])[position]


def _may_become(prepared: TokenSequence, in_batch: TokenSequence) -> bool:
    if list(prepared.ids) != list(in_batch.ids) or prepared.class_index != in_batch.class_index:
        return False
    if prepared.labels is None or in_batch.labels is None:
        return prepared.labels is in_batch.labels
    same_tail = list(prepared.labels[1:]) == list(in_batch.labels[1:])
    return same_tail and list(in_batch.labels[:1]) in (list(prepared.labels[:1]), [IGNORED])
