"""Probe of packing: does a model keep the documents of one row apart?

That depends on the model's family and its attention, and no library reports it. A model that does not keep documents
apart reads the earlier ones, silently. So the model that will train is probed, in its own dtype and kernels.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eyas.errors import PreflightError
from eyas.model.document_mask import is_masked, mask
from eyas.model.probes.difference import largest, rounding, smallest, tells, try_mode, within, worst
from eyas.model.probes.documents import dense_products, random_documents, without_dropout
from eyas.model.probes.layerwise import (
    ATTENTION,
    OUTPUTS,
    Observed,
    differences,
    end_to_end,
    largest_of,
    observe,
    tokens,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Mode = Literal["native", "block_diagonal"]
MEANING = {"native": "by itself", "block_diagonal": "with a block-diagonal mask"}
DOCUMENT_LENGTHS = (12, 7, 5)
OFF = "training.packing: false"


@dataclass(frozen=True)
class PackingResult:
    """Packing mode of one model, with the figures that decide it.

    The figures are differences of the tensors `where`, relative to a token's length there.
    """

    model: str
    attention: str
    mode: Mode | None
    where: str
    difference: float
    """Between documents packed and alone."""
    tolerance: float
    """Of rounding."""
    reaction: float
    """To another first token of a document, in the layer that reacts least."""

    def text(self) -> str:
        """Return the result as a sentence; a refusal ends with the settings that help."""
        who = f"{self.model} with {self.attention} attention"
        figures = (
            f"{self.where} differ by {self.difference:.2g} from those of a document alone; tolerance "
            f"{self.tolerance:.2g}"
        )
        if self.mode is not None:
            return f"{who} keeps packed documents apart {MEANING[self.mode]} ({figures})"
        unknown = f"training.packing: cannot tell whether {who} keeps packed documents apart"
        if not math.isfinite(self.difference):
            return f"{unknown}: its {self.where} are NaN or Inf; set model.dtype: bfloat16 or float32, or set {OFF}"
        if within(self.difference, self.tolerance):
            return (
                f"{unknown}: its {self.where} move by {self.reaction:.2g} when the first token of a text changes, and "
                f"by {self.tolerance:.2g} from rounding alone; set {OFF}"
            )
        return (
            f"training.packing: {who} would let packed documents read each other ({figures}); set "
            f"model.attn_implementation: flash_attention_2 where the model supports it, or {OFF}"
        )


@dataclass(frozen=True)
class _Probe:
    """Random documents with the tensors of each alone, and how far rounding and another token move those."""

    documents: list["Tensor"]
    alone: Observed
    tolerances: dict[str, float]
    reaction: float

    @property
    def reads(self) -> str:
        """Kind of the tensors in which tokens read each other."""
        return ATTENTION if ATTENTION in self.alone else OUTPUTS

    def differences(self, packed: Observed) -> dict[str, float]:
        """Return how far documents in one row are from those alone, for each kind of tensor."""
        return {kind: largest(values) for kind, values in differences(packed, self.alone).items()}

    def is_rounding(self, figures: dict[str, float]) -> bool:
        """Return whether differences are no more than rounding."""
        return all(within(difference, self.tolerances[kind]) for kind, difference in figures.items())

    def result(self, model: "PreTrainedModel", mode: Mode, figures: dict[str, float]) -> PackingResult:
        """Return the result with the figures that decide it: those closest to their tolerance."""
        sensitive = tells(self.reaction, self.tolerances[self.reads])
        safe = self.is_rounding(figures)
        closest = worst({kind: (figures[kind], self.tolerances[kind]) for kind in figures})
        where = closest if sensitive or not safe else self.reads
        return PackingResult(
            _class_name(model), model.config._attn_implementation, mode if safe and sensitive else None,
            where, figures[where], self.tolerances[where], self.reaction,
        )  # fmt: skip


def probe_packing(model: "PreTrainedModel") -> PackingResult:
    """Probe how the model keeps packed documents apart.

    It may do so by itself, else with a block-diagonal mask, else not at all.

    Three short documents of random tokens run alone, and packed as TRL's collator packs them. Each layer is observed
    by itself. The tolerance is four times the difference of the same documents in padded rows: some 1e-6 in float32
    and 0.01 in bfloat16. One token that one layer reads over a border makes some 0.3. A model whose layers react to
    one token by less than ten times that tolerance is refused: the probe cannot tell.

    The model, with or without a peft adapter, is restored afterwards. Its weights must be whole.
    Raises PreflightError when the model itself refuses a packed row.
    """
    import torch

    with torch.no_grad(), without_dropout(model), dense_products(model):
        probe = _probe(model)
        mode: Mode = "block_diagonal" if is_masked(model) else "native"
        try:
            figures = probe.differences(_packed(model, probe.documents))
        except ValueError as error:
            raise PreflightError(f"training.packing: {_class_name(model)} refuses a packed row: {error}") from error
        if mode == "native" and not probe.is_rounding(figures) and is_plainly_causal(model):
            masked = _masked(model, probe)
            if masked is not None and probe.is_rounding(masked):
                mode, figures = "block_diagonal", masked
    return probe.result(model, mode, figures)


def _class_name(model: "PreTrainedModel") -> str:
    from peft import PeftModel

    return type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__


def is_plainly_causal(model: "PreTrainedModel") -> bool:
    """Return whether a token reads all tokens before it.

    A mask of ours would replace windows and chunks.
    """
    config = model.config.get_text_config()
    limits = ("sliding_window", "attention_chunk_size")
    kinds = set(getattr(config, "layer_types", None) or [])
    return kinds <= {"full_attention"} and not any(getattr(config, limit, None) for limit in limits)


def _probe(model: "PreTrainedModel") -> _Probe:
    documents = random_documents(model, DOCUMENT_LENGTHS)
    alone = [observe(model, document) for document in documents]
    return _Probe(
        documents, end_to_end(alone), _tolerances(model, documents, alone), _reaction(model, documents, alone)
    )


def _tolerances(model: "PreTrainedModel", documents: list["Tensor"], alone: list[Observed]) -> dict[str, float]:
    """Return the tolerance of each kind of tensor, from each document in a padded row."""
    import torch

    row, padded = torch.cat(documents), []  # the tokens after a document are masked as padding
    for document, its in zip(documents, alone, strict=True):
        length = len(document)
        attention_mask = (torch.arange(len(row)) < length).long()[None]
        observed = observe(model, torch.cat([document, row[length:]]), attention_mask=attention_mask)
        padded.append(differences(tokens(observed, slice(length)), its))
    return {kind: rounding(model.dtype, values) for kind, values in largest_of(padded).items()}


def _reaction(model: "PreTrainedModel", documents: list["Tensor"], alone: list[Observed]) -> float:
    """Return how far another first token moves the tokens after it, in the layer that reacts least."""
    import torch

    vocabulary, later, figures = model.config.get_text_config().vocab_size, slice(1, None), []
    for document, its in zip(documents, alone, strict=True):
        changed = torch.cat([(document[:1] + vocabulary // 2) % vocabulary, document[1:]])
        figures.append(differences(tokens(observe(model, changed), later), tokens(its, later)))
    values = largest_of(figures)
    return smallest(values[ATTENTION] if ATTENTION in values else values[OUTPUTS])


def _packed(model: "PreTrainedModel", documents: list["Tensor"]) -> Observed:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": document.tolist()} for document in documents])
    del batch["labels"]
    return observe(model, **batch)


def _masked(model: "PreTrainedModel", probe: _Probe) -> dict[str, float] | None:
    handle = mask(model)
    return try_mode(lambda: probe.differences(_packed(model, probe.documents)), handle.remove, refused=None)
