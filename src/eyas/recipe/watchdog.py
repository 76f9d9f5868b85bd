"""How long a rank may stand still before the job is ended."""

from pydantic import Field

from eyas.recipe.section import Section


class Watchdog(Section):
    """Limits on silence. A rank that is hung or stopped ends the whole job, with a report of where every rank stood.

    A limit is no deadline for the work: each micro-batch, log line and evaluation batch starts it again. While one rank
    saves, those that wait for it are granted the limit of a save too.
    """

    set_up_seconds: int = Field(
        1800,
        ge=3,
        description="Longest silence until the first step has ended; a resume skips to its row and a compiler works "
        "within it.",
    )
    step_seconds: int = Field(
        600,
        ge=3,
        description="Longest silence while training and evaluating; several times the slowest micro-batch is a good "
        "choice.",
    )
    save_seconds: int = Field(
        1800, ge=3, description="Longest silence while a checkpoint or the final model is written."
    )

    def seconds_in(self, phase: str) -> int:
        """Return the limit of a phase: `set-up`, `step` or `save`."""
        return {"set-up": self.set_up_seconds, "step": self.step_seconds, "save": self.save_seconds}[phase]
