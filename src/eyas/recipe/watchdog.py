"""The watchdog section: time limits for a rank without progress."""

from pydantic import Field

from eyas.recipe.section import Section


class Watchdog(Section):
    """Time limits for a rank without progress. A rank past its limit ends the job, with a report of every rank's stack.

    A limit is not a deadline for a phase: each micro-batch, log line and evaluation batch restarts it. While one rank
    saves, the ranks that wait for it have the limit of a save too.
    """

    set_up_seconds: int = Field(
        1800,
        ge=3,
        description="Seconds without progress from the start of the process to the end of the first step. That "
        "includes imports, rows, weights, compilation and the rows that a resumed run skips.",
    )
    step_seconds: int = Field(
        600,
        ge=3,
        description="Seconds without progress during training and evaluation; choose several times the slowest "
        "micro-batch.",
    )
    save_seconds: int = Field(
        1800, ge=3, description="Seconds without progress while a checkpoint or the final model is written."
    )

    def seconds_in(self, phase: str) -> int:
        """Return the limit of a phase, in seconds: `set-up`, `step` or `save`."""
        return {"set-up": self.set_up_seconds, "step": self.step_seconds, "save": self.save_seconds}[phase]
