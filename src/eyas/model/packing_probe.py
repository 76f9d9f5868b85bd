"""Documents packed into one row of tokens: whether a model keeps them apart, and a mask for one that does not.

Whether it does depends on its family and its attention, and none of the libraries says so: one that does not reads the
documents before, silently. So the very model that will train is probed, in its own dtype and with its own kernels.
"""

from dataclasses import dataclass
from typing import Any

from eyas.errors import PreflightError
from eyas.model.document_mask import is_masked, mask
from eyas.model.packing_verdict import PackingVerdict, Way
from eyas.model.probes.difference import ALLOWED_DIFFERENCE, PADDINGS, largest, smallest, tells, within, worst
from eyas.model.probes.documents import dense_products, without_dropout
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

DOCUMENT_LENGTHS = (12, 7, 5)
LAST_DIGITS = 2
"""Padding may happen to round as a document alone does where a border does not, so these are allowed in any case."""


@dataclass(frozen=True)
class _Probe:
    """Random documents, what a model computes of each alone, and how far rounding and another token move that."""

    documents: list[Any]
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

    def is_rounding(self, found: dict[str, float]) -> bool:
        """Return whether differences are no more than rounding."""
        return all(within(difference, self.tolerances[kind]) for kind, difference in found.items())

    def verdict(self, model: Any, way: Way, found: dict[str, float]) -> PackingVerdict:
        """Return the result with the figures that decide it: those that come closest to their tolerance."""
        told = tells(self.reaction, self.tolerances[self.reads])
        safe = self.is_rounding(found)
        closest = worst({kind: (found[kind], self.tolerances[kind]) for kind in found})
        where = closest if told or not safe else self.reads
        return PackingVerdict(
            _class_name(model), model.config._attn_implementation, way if safe and told else None,
            where, found[where], self.tolerances[where], self.reaction,
        )  # fmt: skip


def probe_packing(model: Any) -> PackingVerdict:
    """Return how the model keeps packed documents apart: as it is, else with a block-diagonal mask, else not at all.

    Three short documents of random tokens are run alone, and packed as TRL's collator packs them, each layer observed
    by itself. They may differ by four times what the same documents in padded rows do: some 1e-6 in float32 and 0.01 in
    bfloat16. One token that one layer reads over a border makes some 0.3. A model whose layers react to one token by
    less than ten times that tolerance is refused, for it cannot tell.

    The model, with or without a peft adapter, is left as it was. Its weights must be whole.
    Raises PreflightError when the model itself refuses a packed row.
    """
    import torch

    with torch.no_grad(), without_dropout(model), dense_products(model):
        probe = _probe(model)
        way: Way = "block_diagonal" if is_masked(model) else "native"
        try:
            found = probe.differences(_packed(model, probe.documents))
        except ValueError as error:
            raise PreflightError(f"training.packing: {_class_name(model)} refuses a packed row: {error}") from error
        if way == "native" and not probe.is_rounding(found) and is_plainly_causal(model):
            masked = _masked(model, probe)
            if masked is not None and probe.is_rounding(masked):
                way, found = "block_diagonal", masked
    return probe.verdict(model, way, found)


def _class_name(model: Any) -> str:
    from peft import PeftModel

    return type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__


def is_plainly_causal(model: Any) -> bool:
    """Whether a token reads all tokens before it; a mask of ours would take the place of windows and chunks."""
    config = model.config.get_text_config()
    limits = ("sliding_window", "attention_chunk_size")
    kinds = set(getattr(config, "layer_types", None) or [])
    return kinds <= {"full_attention"} and not any(getattr(config, limit, None) for limit in limits)


def _probe(model: Any) -> _Probe:
    import torch

    generator = torch.Generator().manual_seed(0)  # of its own, so that training draws what it would have drawn
    vocabulary = model.config.get_text_config().vocab_size
    documents = [torch.randint(vocabulary, (length,), generator=generator) for length in DOCUMENT_LENGTHS]
    alone = [observe(model, document) for document in documents]
    return _Probe(
        documents, end_to_end(alone), _tolerances(model, documents, alone), _reaction(model, documents, alone)
    )


def _tolerances(model: Any, documents: list[Any], alone: list[Observed]) -> dict[str, float]:
    """Return what rounding may do: four times what it does to a document in a padded row."""
    import torch

    row, padded = torch.cat(documents), []  # what stands in the row after a document is masked as padding
    for document, its in zip(documents, alone, strict=True):
        length = len(document)
        attention_mask = (torch.arange(len(row)) < length).long()[None]
        found = observe(model, torch.cat([document, row[length:]]), attention_mask=attention_mask)
        padded.append(differences(tokens(found, slice(length)), its))
    least = max(ALLOWED_DIFFERENCE, LAST_DIGITS * torch.finfo(model.dtype).eps)
    return {
        kind: largest([least, *(PADDINGS * each for each in values)]) for kind, values in largest_of(padded).items()
    }


def _reaction(model: Any, documents: list[Any], alone: list[Observed]) -> float:
    """Return how far another first token moves the tokens after it, in the layer where it does least."""
    import torch

    vocabulary, later, found = model.config.get_text_config().vocab_size, slice(1, None), []
    for document, its in zip(documents, alone, strict=True):
        changed = torch.cat([(document[:1] + vocabulary // 2) % vocabulary, document[1:]])
        found.append(differences(tokens(observe(model, changed), later), tokens(its, later)))
    values = largest_of(found)
    return smallest(values[ATTENTION] if ATTENTION in values else values[OUTPUTS])


def _packed(model: Any, documents: list[Any]) -> Observed:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": document.tolist()} for document in documents])
    del batch["labels"]
    return observe(model, **batch)


def _masked(model: Any, probe: _Probe) -> dict[str, float] | None:
    handle = mask(model)
    try:
        return probe.differences(_packed(model, probe.documents))
    except (ValueError, TypeError, RuntimeError):  # a model that takes no such mask says so in its own way
        return None
    finally:
        handle.remove()
