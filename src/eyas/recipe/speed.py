"""What is done to be fast. Each of these changes the time and the memory of a run, and no number that is not drawn."""

from pydantic import Field

from eyas.recipe.section import Section


class Speed(Section):
    """Ways to compute less, and to compute it at once. What is done, and what is not and why, is said at the start.

    Left out, each is done where the model that trains proves it exact at the start, and where it has been measured to
    pay. With `true` a run that cannot do it is refused; `false` leaves it.
    """

    compact_batches: bool | None = Field(None, description="Compute no padding, and no score that no loss asks for.")
    shared_beginnings: bool | None = Field(
        None, description="Compute once what several rows of a batch begin with, such as an instruction (sft)."
    )
    fused_lora: bool | None = Field(None, description="Compute a layer and its LoRA in one step of autograd.")
    quick_dropout: bool | None = Field(
        None, description="On a CPU, draw what dropout hides many values at a time: the same share, other draws."
    )
    dequantized_gib: float | None = Field(
        None,
        ge=0,
        description="Memory for each rank in which 4-bit weights are kept in full precision as well; left out, the "
        "ranks share half of what is free on a CPU, and take none on a GPU.",
    )
