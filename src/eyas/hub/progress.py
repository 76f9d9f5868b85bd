"""Progress of a download in one line: bytes, rate and time left."""

import sys
import time
from collections.abc import Callable
from typing import Any

from eyas.files import in_units

SECONDS_BETWEEN_LINES = 10.0


class DownloadLine:
    """Byte counter over all files of one download: a bar on a terminal, else a line every ten seconds.

    It calls `alive` whenever bytes arrive.
    """

    def __init__(self, what: str, total: int, say: Callable[[str], None] | None, alive: Callable[[], None]) -> None:
        self._what, self._total, self._say, self._alive = what, total, say, alive
        self._done, self._started = 0, time.monotonic()
        self._last_line = self._started
        self._bar = self._terminal_bar() if say is not None and sys.stderr.isatty() else None

    def add(self, count: int) -> None:
        """Count written bytes; a negative number undoes bytes that a retry downloads again."""
        self._done += count
        self._alive()
        if self._bar is not None:
            self._bar.update(count)
        elif self._say is not None and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(self._text())

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()

    def bar_class(self) -> type:
        """Return a bar class for huggingface_hub whose bars are invisible and count here."""
        from tqdm import tqdm

        line = self

        class Counted(tqdm):  # type: ignore[type-arg]
            def __init__(self, *_values: Any, desc: str = "", total: float | None = None, **_options: Any) -> None:
                super().__init__(desc=desc, total=total, disable=True)
                # huggingface_hub 2.4 has one bar for received bytes, one for bytes on disk and one for files.
                self.counts_bytes_on_disk = desc.startswith("Reconstructing")

            def update(self, count: float | None = 1) -> None:
                if self.counts_bytes_on_disk:
                    line.add(int(count or 0))

        return Counted

    def _text(self) -> str:
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        left = f", {(self._total - self._done) / rate / 60:.0f} min left" if rate else ""
        return f"{self._what}: {in_units(self._done)} of {in_units(self._total)}, {in_units(int(rate))}/s{left}"

    def _terminal_bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(desc=self._what, total=self._total, unit="B", unit_scale=True, leave=False)
