"""Layout of a compact batch: computed tokens, and who reads whom."""

import random
from itertools import combinations

import pytest
import torch

from eyas.speed.compact.layout import Group, documents_of_positions, documents_of_rows, layout_of, recurring


def of_texts(texts, shareable=None):
    """Return the layout of documents end to end, with all their tokens and places."""
    ids = [token for text in texts for token in text]
    places, start = [], 0
    for text in texts:
        places.append(list(range(start, start + len(text))))
        start += len(text)
    return layout_of(places, ids, shareable or [len(text) - 1 for text in texts]), ids, places


def read_by(layout):
    """Return, for each kept token, the places of all tokens that it reads, itself last."""
    found, start = {}, 0
    for group in layout.groups:
        prefix = layout.kept[start : start + group.prefix].tolist()
        for index, place in enumerate(prefix):
            found[place] = prefix[: index + 1]
        start += group.prefix
        for suffix in group.suffixes:
            own = layout.kept[start : start + suffix].tolist()
            for index, place in enumerate(own):
                found[place] = prefix + own[: index + 1]
            start += suffix
    return found


def test_documents_with_a_common_prefix_share_it_and_others_do_not():
    layout, ids, _ = of_texts([[1, 2, 3, 4], [9, 9], [1, 2, 3, 5, 6]])

    assert layout.groups == (Group(3, (1, 2)), Group(0, (2,)))
    assert [ids[place] for place in layout.kept] == [1, 2, 3, 4, 5, 6, 9, 9]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 3, 4, 0, 1]]
    assert layout.tokens == 8


def test_two_instructions_in_one_batch_are_two_groups():
    layout, _, _ = of_texts([[1, 1, 1, 5], [2, 2, 2, 5], [1, 1, 1, 6], [2, 2, 2, 6]])

    assert layout.groups == (Group(3, (1, 1)), Group(3, (1, 1)))


def test_tokens_with_a_label_are_not_shared():
    layout, _, _ = of_texts([[1, 2, 3, 4], [1, 2, 3, 5]], shareable=[1, 3])

    assert layout.groups == (Group(1, (3, 3)),)


def test_document_that_is_a_prefix_of_another_keeps_a_token_of_its_own():
    layout, _, _ = of_texts([[1, 2, 3], [1, 2, 3, 4]])

    assert layout.groups == (Group(2, (1, 2)),)


@pytest.mark.parametrize("seed", range(40))
def test_every_token_reads_its_own_document(seed):
    draw = random.Random(seed)
    texts = [[draw.randrange(2) for _ in range(draw.randint(1, 7))] for _ in range(draw.randint(1, 6))]
    shareable = [draw.randrange(len(text)) for text in texts]

    layout, ids, places = of_texts(texts, shareable)

    reads = read_by(layout)
    for text, own, limit in zip(texts, places, shareable, strict=True):
        for index in range(limit, len(text)):  # its own tokens; shared ones may be another document's
            assert [ids[place] for place in reads[own[index]]] == text[: index + 1]
    assert layout.tokens == len(layout.kept) == layout.position_ids.shape[1]
    assert fewest(texts, shareable) <= layout.tokens <= sum(map(len, texts))


def test_groups_of_neighbors_are_nearly_always_optimal():
    draw, best = random.Random(0), 0
    for _ in range(100):
        texts = [[draw.randrange(2) for _ in range(draw.randint(1, 7))] for _ in range(draw.randint(1, 6))]
        shareable = [draw.randrange(len(text)) for text in texts]
        best += of_texts(texts, shareable)[0].tokens == fewest(texts, shareable)

    assert best >= 90


def fewest(texts, shareable):
    """Return the fewest tokens over all possible groups of documents."""
    if not texts:
        return 0
    first, rest = 0, range(1, len(texts))
    best = float("inf")
    for size in range(len(texts)):
        for others in combinations(rest, size):
            group = [first, *others]
            common = 0 if size == 0 else min(shareable[member] for member in group)
            while len({tuple(texts[member][:common]) for member in group}) > 1:
                common -= 1
            left = [member for member in rest if member not in others]
            here = sum(len(texts[member]) for member in group) - common * size
            best = min(best, here + fewest([texts[m] for m in left], [shareable[m] for m in left]))
    return best


def test_documents_are_found_in_padded_rows_and_in_flat_ones():
    left_and_right = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1]])

    assert documents_of_rows(left_and_right) == [[0, 1], [4, 5], [6, 7, 8]]
    assert documents_of_positions(torch.tensor([[0, 1, 2, 0, 0, 1]])) == [[0, 1, 2], [3], [4, 5]]


def test_numbers_of_tokens_recur_in_bfloat16_on_a_cpu():
    cpu = torch.device("cpu")

    assert [recurring(tokens, torch.bfloat16, cpu) for tokens in (1, 8, 46, 355, 3000)] == [8, 8, 48, 384, 3072]
    for tokens in range(1, 5000, 7):
        assert tokens <= recurring(tokens, torch.bfloat16, cpu) <= max(8, 1.125 * tokens)
        assert recurring(tokens, torch.float32, cpu) == tokens
        assert recurring(tokens, torch.bfloat16, torch.device("meta")) == tokens
