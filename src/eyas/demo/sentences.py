"""Training rows from sentences rated by twenty people each (Hutto and Gilbert, ICWSM 2014; MIT).

A sentence's source is the file it comes from; its sentiment is its mean rating between -4 and 4, neutral within ±0.8.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from eyas.demo.assets import read_from_tar

INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "tweet": "tweets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}
SENTIMENTS = ("negative", "neutral", "positive")
NEUTRAL_WITHIN = 0.8
LENGTHS = range(20, 121)
"""Characters. Short sentences keep the quickstart short on a laptop."""
HELD_OUT_PER_CELL = 17
TRAINING_PER_CELL = 180
"""A cell is one source and one sentiment; twelve equal ones make chance 25 % and 33 %."""
INSTRUCTION = 'Answer with JSON: {"source": "movie|tweet|product|news", "sentiment": "negative|neutral|positive"}'

Row = dict[str, str]


def write_sentences(archive: Path, folder: Path) -> dict[str, int]:
    """Write train and test rows, labeled, as chats and with tags, and return their numbers."""
    rows = _rows(archive)
    cells: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=_order):
        cells[row["source"], row["sentiment"]].append(row)
    smallest = min(map(len, cells.values()))
    assert len(cells) == 12 and smallest >= HELD_OUT_PER_CELL + TRAINING_PER_CELL, f"a cell has only {smallest} rows"
    test = [row for cell in cells.values() for row in cell[:HELD_OUT_PER_CELL]]
    train = [row for cell in cells.values() for row in cell[HELD_OUT_PER_CELL:][:TRAINING_PER_CELL]]
    folder.mkdir(parents=True)
    for name, part in (("train", sorted(train, key=_order)), ("test", sorted(test, key=_order))):
        for kind, form in FORMS.items():
            _write(folder / f"{kind}_{name}.jsonl", map(form, part))
    return {"train": len(train), "test": len(test)}


def _rows(archive: Path) -> list[Row]:
    unique: dict[str, Row] = {}
    with tarfile.open(fileobj=io.BytesIO(read_from_tar(archive, INNER_ARCHIVE))) as inner:
        for source, file in FILES.items():
            member = inner.extractfile(f"hutto_ICWSM_2014/{file}")
            assert member is not None, f"the archive holds no {file}"
            for line in member.read().decode("latin-1").splitlines():
                _, rating, text = line.split("\t", 2)
                text = " ".join(text.split())
                if len(text) in LENGTHS:
                    row = {"text": text, "source": source, "sentiment": _sentiment(float(rating))}
                    # Sentences that differ only in punctuation are kept once, so that no two splits share one.
                    unique.setdefault(" ".join(re.findall(r"\w+", text.casefold())), row)
    return list(unique.values())


def _sentiment(rating: float) -> str:
    if abs(rating) <= NEUTRAL_WITHIN:
        return "neutral"
    return "positive" if rating > 0 else "negative"


def _order(row: Row) -> str:
    """Return a hash of the text, for an order that is random and the same on every machine."""
    return hashlib.sha256(row["text"].encode()).hexdigest()


def _as_chat(row: Row) -> dict[str, list[dict[str, str]]]:
    answer = json.dumps({"source": row["source"], "sentiment": row["sentiment"]})
    return {
        "messages": [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": row["text"]},
            {"role": "assistant", "content": answer},
        ]
    }


def _as_tags(row: Row) -> dict[str, list[str]]:
    """Return words and BIO tags by rule: a run of capitalized words is a NAME, a run of words with a digit a NUMBER.

    The first word of a sentence is no name, for every sentence begins with a capital.
    """
    words = re.findall(r"\w+(?:['’.,]\w+)*|[^\w\s]", row["text"])
    kinds = [_kind_of(word, words[index - 1] if index else ".") for index, word in enumerate(words)]
    before = ["", *kinds[:-1]]
    tags = [f"{'I' if kind == last else 'B'}-{kind}" if kind else "O" for kind, last in zip(kinds, before, strict=True)]
    return {"tokens": words, "tags": tags}


def _kind_of(word: str, before: str) -> str:
    if any(letter.isdigit() for letter in word):
        return "NUMBER"
    starts_sentence = before in (".", "!", "?", ":", '"')
    return "NAME" if word[0].isupper() and word != "I" and not starts_sentence else ""


FORMS: dict[str, Callable[[Row], object]] = {"sentiment": dict, "chat": _as_chat, "tags": _as_tags}
"""Beginning of a file's name, and how a row is written in it."""
SENTENCE_FILES = tuple(f"{kind}_{name}.jsonl" for kind in FORMS for name in ("train", "test"))


def _write(file: Path, rows: Iterable[object]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
