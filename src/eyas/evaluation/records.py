"""Records of held-out rows, one JSON line each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def write_records(file: Path, records: Sequence[Record]) -> None:
    """Write the records of one model."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(lines, encoding="utf-8")


def read_records(file: Path) -> list[Record]:
    """Return the records of one model, in the order of the rows."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
