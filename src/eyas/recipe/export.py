"""What is released, and how closely it is compared with what was trained."""

from pydantic import Field

from eyas.recipe.model import DType
from eyas.recipe.section import Section


class Export(Section):
    """The merged model."""

    dtype: DType = Field("bfloat16", description="Dtype of the merged weights; merged in float32, cast once.")
    probe_rows: int = Field(32, gt=0, description="Held-out rows replayed through both models to compare them.")
