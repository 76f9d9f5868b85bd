"""`eyas verify`: check every byte of a run against its manifests."""

from pathlib import Path
from typing import Annotated

import typer

from eyas.cli.errors import errors_as_text

SHOWN_FAULTS = 5


def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A run's folder, or one checkpoint, adapter, model or merged model in it."),
    ],
) -> None:
    """Check every byte of a run, or of one folder in it.

    The bytes are compared with the digests that were recorded when they were written.

    Checkpoints, adapter/, model/, merged/ and exports each have a MANIFEST.json with the SHA-256 of every file. It is
    written last. The manifest.json of a run holds the digests of recipe.yaml and, once the run is finished, of
    metrics.jsonl and data_report.json. This finds files that are missing, truncated, extended, changed in a single bit,
    or not listed. For a run it also prints which checkpoint --resume would use.

    Listed but not checked: broken-checkpoint-* folders, which a resume has renamed, and unfinished folders that a
    killed process left. This is not a signature: anyone who can write to the folder can re-seal it.

    Exits with 0 if every byte is as written, else with 1.
    """
    with errors_as_text():
        from threading import Lock

        from tqdm import tqdm

        from eyas.cli.tables import print_table
        from eyas.run_directory import RunDirectory
        from eyas.verify import effect_of_resume, is_run, not_verified, subjects_of

        subjects = subjects_of(folder)
        total = sum(subject.bytes for subject in subjects)
        lock = Lock()  # several threads read files
        with tqdm(total=total, desc="reading", unit="B", unit_scale=True, leave=False, disable=None) as bar:

            def read(count: int) -> None:
                with lock:
                    bar.update(count)

            results = [(subject, subject.faults(read)) for subject in subjects]
        lines = [
            [subject.what, str(subject.step or ""), f"{subject.bytes:,}", _result(faults)]
            for subject, faults in results
        ]
        print_table(str(folder), [["what", "step", "bytes", "result"], *lines])
        for subject, faults in results:
            _print_faults(subject.what, faults)
        if is_run(folder):
            run = RunDirectory(folder)
            for path in not_verified(run):
                typer.echo(f"renamed or unfinished, not checked: {path}")
            typer.echo(f"--resume would {effect_of_resume(run, results)}")
        broken = sum(bool(faults) for _, faults in results)
        typer.echo(f"{broken} of {len(results)} are not as written" if broken else "every byte is as written")
    raise typer.Exit(1 if broken else 0)


def _result(faults: list[str]) -> str:
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''}" if faults else "whole"


def _print_faults(what: str, faults: list[str]) -> None:
    if faults:
        more = [f"… and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        typer.echo("\n  ".join([f"{what}:", *faults[:SHOWN_FAULTS], *more]))
