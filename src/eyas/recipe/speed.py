"""What is done to be fast. Each of these changes the time and the memory of a run, and no number of it."""

from pydantic import Field

from eyas.recipe.section import Section


class Speed(Section):
    """Ways to compute less, and to compute it at once. Each is on wherever it is known to be exact, and said."""

    compact_batches: bool = Field(
        True,
        description="Compute no padding and no score that no loss asks for (sft). Proven at the start on the model.",
    )
    shared_beginnings: bool = Field(
        True, description="Compute only once what several rows of a batch begin with, an instruction say (sft)."
    )
    fused_lora: bool = Field(True, description="A layer and its LoRA in one step of autograd.")
    dequantized_gib: float | None = Field(
        None,
        ge=0,
        description="Memory in which 4-bit weights are also kept in full precision; on a CPU half of what is free when "
        "left out, on a GPU none.",
    )
