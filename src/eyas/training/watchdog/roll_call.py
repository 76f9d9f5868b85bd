"""What the ranks do once one of them has found a hang: each tells what it sees, and one writes it all down."""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from eyas.training.watchdog.report import Standing, View
from eyas.training.watchdog.stacks import write_stacks


class RollCall:
    """The files of one start by which its ranks call, answer and report."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._call = folder / "call"
        self._reported = folder / "reported"

    @property
    def reason(self) -> str | None:
        """Why the job hangs, once a rank has called."""
        try:
            return self._call.read_text(encoding="utf-8")
        except OSError:
            return None

    def call(self, reason: str) -> None:
        """Tell every rank that the job hangs; of several that find it at once, the first gives the reason."""
        with suppress(FileExistsError), self._call.open("x", encoding="utf-8") as stream:
            stream.write(reason)

    def answer(self, rank: int, view: View) -> None:
        """Write this rank's stacks, then what it sees: who finds the second finds the first."""
        write_stacks(self._stacks(rank))
        staging = self._folder / f".answer{rank}"
        staging.write_text(json.dumps([asdict(each) for each in view]), encoding="utf-8")
        staging.replace(self._answer(rank))

    def await_answers(self, expected: Iterable[int], seconds: float) -> bool:
        """Return whether all that are expected have answered, at the latest when time is up."""
        return wait_for(lambda: all(self._answer(rank).exists() for rank in expected), seconds)

    def answers(self, ranks: Iterable[int]) -> dict[int, View]:
        """Return what each of these ranks that has answered sees."""
        files = {rank: self._answer(rank) for rank in ranks if self._answer(rank).exists()}
        texts = {rank: file.read_text(encoding="utf-8") for rank, file in files.items()}
        return {rank: [Standing(**each) for each in json.loads(text)] for rank, text in texts.items()}

    def stacks(self, rank: int) -> str:
        """Return a rank's stacks: those for which a signal asked, if it had to, or else those of its answer."""
        files = (file for file in (self.asked_stacks(rank), self._stacks(rank)) if file.exists())
        return next((text for file in files if (text := file.read_text(encoding="utf-8").strip())), "")

    def asked_stacks(self, rank: int) -> Path:
        """Return the file for the stacks of a rank whose watchdog cannot run."""
        return self._folder / f"rank{rank}.asked_stacks"

    def mark_reported(self) -> None:
        """Let the other ranks leave."""
        self._reported.touch()

    def await_report(self, seconds: float) -> bool:
        """Return whether the report is written, at the latest when time is up."""
        return wait_for(self._reported.exists, seconds)

    def _stacks(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.stacks"

    def _answer(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.answer"


def wait_for(ready: Callable[[], bool], seconds: float) -> bool:
    """Return True as soon as it is so, False once time is up."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
