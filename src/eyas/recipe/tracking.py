"""Where the curves are shown, besides the run directory that always keeps them."""

from typing import Literal

from pydantic import Field

from eyas.recipe.section import Section


class Tracking(Section):
    """A tracker that mirrors metrics.jsonl. One that is down never stops or delays a run."""

    report_to: Literal["none", "wandb", "tensorboard"] = Field("none", description="The tracker.")
    project: str = Field("eyas", description="Project of the run in wandb.")
    mode: Literal["online", "offline"] = Field("online", description="offline keeps wandb's record in the run folder.")
