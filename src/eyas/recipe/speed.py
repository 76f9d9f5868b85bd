"""The speed section: optional optimizations, which change time and memory alone."""

from pydantic import Field

from eyas.recipe.section import Section


class Speed(Section):
    """Optional optimizations of training. Each is reported as on or off at the start, with the reason.

    Left out, an optimization is on where it was measured to pay and a probe on the loaded model shows the same
    results. `true` refuses a run where it is not possible. `false` turns it off.
    """

    compact_batches: bool | None = Field(
        None, description="Skip padding, and skip logits of positions without a label."
    )
    shared_beginnings: bool | None = Field(
        None, description="Compute a prefix that several rows of a batch share, such as an instruction, once (sft)."
    )
    fused_lora: bool | None = Field(None, description="Compute a layer and its LoRA in one autograd function.")
    quick_dropout: bool | None = Field(
        None, description="Faster dropout on CPU: the same rate from another random stream."
    )
    dequantized_gib: float | None = Field(
        None,
        ge=0,
        description="Memory per rank, in GiB, for a full-precision copy of 4-bit weights. Left out, the ranks share "
        "half of the free memory on a CPU, and use none on a GPU.",
    )
