"""Table of the results of benchmarks/training_speed.py, for the documentation.

python benchmarks/speed_table.py [--write docs/performance.md]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from between_markers import put

RESULTS = Path(__file__).parent / "results"
JOBS = {
    "sft_bf16": "LoRA, 63 of 104 tokens an instruction",
    "sft_bf16_allocator": "the same, and the others have jemalloc too",
    "sft_no_prefix_bf16": "LoRA, no row begins as another",
    "qlora_bf16": "QLoRA NF4, that instruction",
    "classification_bf16": "LoRA classifier; the others in float32",
}


def table(device: str) -> str:
    """Return a line per job: the speed of eyas, and its ratio to each other trainer."""
    measured = json.loads((RESULTS / f"{device}.json").read_text(encoding="utf-8"))
    lines = [
        "| job | eyas | times as fast as (worst round) | its peak memory, of theirs | its first step, of theirs |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(what, measured[job]) for job, what in JOBS.items() if job in measured)])


def _line(what: str, job: dict[str, Any]) -> str:
    ours = job["contestants"]["eyas"]
    theirs = {name: each["ours_to_its"] for name, each in job["contestants"].items() if name != "eyas"}
    speed = ", ".join("{} {:.1f}× ({:.1f})".format(name, *each["speed"]) for name, each in theirs.items())
    memory, start = (
        ", ".join(f"{each[which][0]:.2f}" for each in theirs.values()) for which in ("memory", "first_step")
    )
    held = f"{ours['samples_per_second']:.1f} rows/s, {ours['peak_bytes'] / 2**30:.1f} GiB"
    return f"| {what} | {held} | {speed} | {memory} | {start} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", default="cpu", help="device of the results: the name of a file in benchmarks/results"
    )
    parser.add_argument("--write", type=Path, help="write the table between its markers in this file")
    given = parser.parse_args()
    print(table(given.device))
    if given.write:
        put(given.write, "speed", table(given.device))


if __name__ == "__main__":
    main()
