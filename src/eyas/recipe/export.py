"""The export section: the merged model and its checks."""

from typing import Literal

from pydantic import Field

from eyas.recipe.model import DType
from eyas.recipe.section import Section

Rounding = Literal["nearest", "stochastic"]


class Export(Section):
    """Merging of the adapter into the base."""

    dtype: DType | None = Field(
        None,
        description="Dtype of the merged weights; left out, `model.dtype`. They are computed in float32 and rounded "
        "once.",
    )
    rounding: Rounding | None = Field(
        None,
        description="Rounding of the merged weights. `stochastic` rounds up or down at random, which keeps updates "
        "smaller than the dtype's precision on average. Left out, it is used for each weight whose update `nearest` "
        "would lose.",
    )
    probe_rows: int = Field(
        32, gt=0, description="Held-out rows on which the merged and the trained model are compared."
    )
