"""`eyas verify`: whether every byte is as it was written."""

from pathlib import Path
from typing import Annotated

import typer

from eyas.cli.errors import mistakes_as_text

SHOWN_FAULTS = 5


def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A run's folder, or one checkpoint, adapter, model or merged model of it."),
    ],
) -> None:
    """Read every byte of a run, or of one folder in it, and hold it against what was recorded when it was written.

    Checkpoints, adapter/, model/, merged/ and exports each have a MANIFEST.json with the SHA-256 of every file, written
    last; recipe.yaml and, once the run is finished, metrics.jsonl and data_report.json are recorded in manifest.json.
    Found are files that are missing, cut, longer, changed in a single bit, or not listed; and, for a run, which
    checkpoint --resume would take.

    Not judged, but named: broken-checkpoint-* folders, which a resume has put aside, and what a killed process left
    unfinished. A signature it is not: who can write the folder can seal it again.

    Exits with 0 when all is whole, else with 1.
    """
    with mistakes_as_text():
        from threading import Lock

        from tqdm import tqdm

        from eyas.cli.tables import print_table
        from eyas.run_directory import RunDirectory
        from eyas.verify import effect_of_resume, is_run, not_verified, subjects_of

        subjects = subjects_of(folder)
        total = sum(subject.bytes for subject in subjects)
        lock = Lock()  # files are read by several threads
        with tqdm(total=total, desc="reading", unit="B", unit_scale=True, leave=False, disable=None) as bar:

            def read(count: int) -> None:
                with lock:
                    bar.update(count)

            verdicts = [(subject, subject.faults(read)) for subject in subjects]
        lines = [
            [subject.what, str(subject.step or ""), f"{subject.bytes:,}", _verdict(faults)]
            for subject, faults in verdicts
        ]
        print_table(str(folder), [["what", "step", "bytes", "verdict"], *lines])
        for subject, faults in verdicts:
            _print_faults(subject.what, faults)
        if is_run(folder):
            run = RunDirectory(folder)
            for path in not_verified(run):
                typer.echo(f"put aside or unfinished, not judged: {path}")
            typer.echo(f"--resume would {effect_of_resume(run, verdicts)}")
        broken = sum(bool(faults) for _, faults in verdicts)
        typer.echo(f"{broken} of {len(verdicts)} are not what was written" if broken else "every byte is as written")
    raise typer.Exit(1 if broken else 0)


def _verdict(faults: list[str]) -> str:
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''}" if faults else "whole"


def _print_faults(what: str, faults: list[str]) -> None:
    if faults:
        more = [f"… and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        typer.echo("\n  ".join([f"{what}:", *faults[:SHOWN_FAULTS], *more]))
