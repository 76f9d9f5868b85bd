"""The tracking section: an experiment tracker besides the run directory."""

from typing import Literal

from pydantic import Field

from eyas.recipe.section import Section


class Tracking(Section):
    """A tracker that receives the lines of metrics.jsonl. An unreachable tracker never stops or delays a run."""

    report_to: Literal["none", "wandb", "tensorboard"] = Field("none", description="The tracker.")
    project: str = Field("eyas", description="Name of the wandb project.")
    mode: Literal["online", "offline"] = Field(
        "online", description="`offline` keeps wandb's files in the run directory."
    )
