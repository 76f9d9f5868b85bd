"""What benchmarks/training_speed.py has measured, as the README shows it.

python benchmarks/speed_table.py [--write README.md]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from between_markers import put

RESULTS = Path(__file__).parent / "results"
JOBS = {
    "sft": "LoRA, 63 of 104 tokens an instruction",
    "sft_no_prefix": "LoRA, no row begins as another",
    "qlora": "QLoRA NF4, that instruction",
    "classification": "LoRA classifier",
}


def table(device: str) -> str:
    """Return a line for each job and each trainer that eyas was compared with on a device."""
    measured = json.loads((RESULTS / f"{device}.json").read_text(encoding="utf-8"))
    lines = [
        "| job | against | samples/s, eyas | its | eyas is faster | its peak memory, eyas's share | first step |",
        "|---|---|---|---|---|---|---|",
    ]
    for job, what in JOBS.items():
        if job in measured:
            lines += [_line(what, name, measured[job]) for name in measured[job]["contestants"] if name != "eyas"]
    return "\n".join(lines)


def _line(what: str, name: str, job: dict[str, Any]) -> str:
    ours, its = job["contestants"]["eyas"], job["contestants"][name]
    (speed, slowest), (memory, _), (start, _) = (its["ours_to_its"][key] for key in ("speed", "memory", "first_step"))
    return (
        f"| {what} | {name} | {ours['samples_per_second']:.2f} | {its['samples_per_second']:.2f} "
        f"| {speed:.1f}× ({slowest:.1f}) | {its['peak_bytes'] / 2**30:.1f} GiB, {memory:.2f}× | {start:.2f}× |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="whose results: the name of a file in benchmarks/results")
    parser.add_argument("--write", type=Path, help="put the table between its markers in this file")
    given = parser.parse_args()
    print(table(given.device))
    if given.write:
        put(given.write, "speed", table(given.device))


if __name__ == "__main__":
    main()
