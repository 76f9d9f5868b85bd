"""What is released, and how closely it is compared with what was trained."""

from typing import Literal

from pydantic import Field

from eyas.recipe.model import DType
from eyas.recipe.section import Section

Rounding = Literal["nearest", "stochastic"]


class Export(Section):
    """The merged model."""

    dtype: DType | None = Field(
        None,
        description="Dtype of the merged weights; merged in float32, rounded once. `model.dtype` when left out.",
    )
    rounding: Rounding | None = Field(
        None,
        description="To `nearest`, or `stochastic`: up or down at random, so that an update smaller than the dtype's "
        "steps survives on average; when left out, `stochastic` for each weight whose update `nearest` would lose.",
    )
    probe_rows: int = Field(32, gt=0, description="Held-out rows replayed through both models to compare them.")
