"""Result of the packing probe, and what it says to the user."""

import math
from dataclasses import dataclass
from typing import Literal

from eyas.model.probes.difference import within

Way = Literal["native", "block_diagonal"]
OFF = "set training.packing: false"


@dataclass(frozen=True)
class PackingVerdict:
    """How one model with one attention keeps packed documents apart, and the numbers that say so.

    The numbers are differences of `where`, relative to a token's length there: `difference` between documents packed
    and alone, `tolerance` what rounding may make of it, and `reaction` what another first token does to a document, in
    the layer where it does least.
    """

    model: str
    attention: str
    way: Way | None
    where: str
    difference: float
    tolerance: float
    reaction: float

    def text(self) -> str:
        """Return the result as a sentence, and the way out where it is a refusal."""
        who = f"{self.model} with {self.attention} attention"
        figures = (
            f"{self.where} differ by {self.difference:.2g} from those of a document alone; {self.tolerance:.2g} allowed"
        )
        if self.way is not None:
            how = {"native": "by itself", "block_diagonal": "with a block-diagonal mask"}[self.way]
            return f"{who} keeps packed documents apart {how} ({figures})"
        in_doubt = f"training.packing: whether {who} keeps packed documents apart cannot be told"
        if not math.isfinite(self.difference):
            return f"{in_doubt}: its {self.where} are NaN or infinite; set model.dtype: bfloat16 or float32, or {OFF}"
        if within(self.difference, self.tolerance):
            return (
                f"{in_doubt}: its {self.where} move by {self.reaction:.2g} when the first token of a text changes, and "
                f"by {self.tolerance:.2g} from rounding alone; {OFF}"
            )
        return (
            f"training.packing: {who} would let packed documents read each other ({figures}); set "
            f"model.attn_implementation: flash_attention_2 where the model supports it, or {OFF.removeprefix('set ')}"
        )
