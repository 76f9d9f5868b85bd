"""Documents packed into one row of tokens: whether a model keeps them apart, and a mask for one that does not.

Whether it does depends on its family and its attention, and none of the libraries says so: one that does not reads the
documents before, silently. So the very model that will train is asked.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from eyas.errors import PreflightError
from eyas.model.document_mask import is_masked, mask
from eyas.model.quantization import quantized_names

Way = Literal["native", "block_diagonal"]
DOCUMENT_LENGTHS = (12, 7, 5)
ALLOWED_DIFFERENCE = 1e-5
PADDINGS = 4  # times what padding does to the logits
REACTION_OVER_TOLERANCE = 10


@dataclass(frozen=True)
class PackingVerdict:
    """How one model with one attention keeps packed documents apart, and the numbers that say so.

    All three are differences of logits: `difference` between documents packed and alone, `tolerance` what rounding may
    make of it, and `reaction` what the same tokens do when they are read as one document with another beginning.
    """

    model: str
    attention: str
    way: Way | None
    difference: float
    tolerance: float
    reaction: float

    def text(self) -> str:
        """Return the verdict as a sentence, and the way out where it is a refusal."""
        who = f"{self.model} with {self.attention} attention"
        figures = f"logits differ by {self.difference:.2g} from those of a document alone; {self.tolerance:.2g} allowed"
        if self.way is not None:
            how = {"native": "by itself", "block_diagonal": "with a block-diagonal mask"}[self.way]
            return f"{who} keeps packed documents apart {how} ({figures})"
        if self.difference <= self.tolerance:
            return (
                f"training.packing: whether {who} keeps packed documents apart cannot be told: its logits move by "
                f"{self.reaction:.2g} when the text before them changes, and by {self.tolerance:.2g} from rounding "
                "alone; set training.packing: false"
            )
        return (
            f"training.packing: {who} would let packed documents read each other ({figures}); set "
            "model.attn_implementation: flash_attention_2 where the model supports it, or training.packing: false"
        )


def probe_packing(model: Any) -> PackingVerdict:
    """Return how the model keeps packed documents apart: as it is, else with a block-diagonal mask, else not at all.

    Three short documents of random tokens are run alone, and packed as TRL's collator packs them. Their logits may
    differ by 1e-5 or, where rounding does more, by four times what it does to the same documents in padded rows of the
    same length: some 1e-6 in float32 and 0.03 in bfloat16. A leak is of the size of the model's reaction to other text
    before the same tokens; one that does not react ten times as strongly as rounding is refused, for it cannot tell.

    The model, with or without a peft adapter, is left as it was. Its weights must be whole.
    Raises PreflightError when the model itself refuses a packed row.
    """
    import torch

    with torch.no_grad(), without_dropout(model):
        documents = _documents(model)
        alone = [_logits(model, document) for document in documents]
        tolerance, reaction = _tolerance(model, documents, alone), _reaction(model, documents)
        way: Way | None = "block_diagonal" if is_masked(model) else "native"
        try:
            difference = _packed_against_alone(model, documents, alone)
        except ValueError as error:
            raise PreflightError(f"training.packing: {_class_name(model)} refuses a packed row: {error}") from error
        if way == "native" and difference > tolerance and is_plainly_causal(model):
            masked = _masked_against_alone(model, documents, alone)
            if masked <= tolerance:
                way, difference = "block_diagonal", masked
    safe = difference <= tolerance and reaction >= REACTION_OVER_TOLERANCE * tolerance
    attention = model.config._attn_implementation
    return PackingVerdict(_class_name(model), attention, way if safe else None, difference, tolerance, reaction)


def _class_name(model: Any) -> str:
    from peft import PeftModel

    return type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__


def is_plainly_causal(model: Any) -> bool:
    """Whether a token reads all tokens before it; a mask of ours would take the place of windows and chunks."""
    config = model.config.get_text_config()
    limits = ("sliding_window", "attention_chunk_size")
    kinds = set(getattr(config, "layer_types", None) or [])
    return kinds <= {"full_attention"} and not any(getattr(config, limit, None) for limit in limits)


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Set the model to evaluation, and back to what each module was.

    Quantized layers stay in training: on a CPU, bitsandbytes 0.50 repacks 4-bit weights in evaluation, for good and
    into a form that passes no gradient on.
    """
    before = [(module, module.training) for module in model.modules()]
    quantized = set(quantized_names(model))
    for name, module in model.named_modules():
        module.training = name in quantized
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _documents(model: Any) -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)  # of its own, so that training draws what it would have drawn
    vocabulary = model.config.get_text_config().vocab_size
    return [torch.randint(vocabulary, (length,), generator=generator) for length in DOCUMENT_LENGTHS]


def _logits(model: Any, input_ids: Any, **more: Any) -> Any:
    """Return the logits [length, vocabulary] of one row of tokens in float32."""
    import torch

    inputs = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in {"input_ids": input_ids.view(1, -1), **more}.items()
    }
    return model(**inputs, use_cache=False).logits[0].float()


def _largest_difference(ones: Sequence[Any], others: Sequence[Any]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


def _tolerance(model: Any, documents: list[Any], alone: list[Any]) -> float:
    """Return what rounding may do to the logits: as much as it does to those of a document in a padded row."""
    import torch

    row = torch.cat(documents)  # what stands in it after a document is masked as padding
    padded = []
    for document in documents:
        input_ids = torch.cat([document, row[len(document) :]])
        attention_mask = (torch.arange(len(row)) < len(document)).long()[None]
        padded.append(_logits(model, input_ids, attention_mask=attention_mask)[: len(document)])
    # Padding may happen to round alike where a border does not, so two last digits of the largest logit go as well.
    last_digits = 2 * float(torch.finfo(model.dtype).eps * max(logits.abs().max() for logits in alone))
    return max(ALLOWED_DIFFERENCE, PADDINGS * _largest_difference(padded, alone), last_digits)


def _reaction(model: Any, documents: list[Any]) -> float:
    """Return how far the later documents' logits move, read as one text with the first, when the first changes."""
    import torch

    first, later = documents[0], documents[1:]
    changed = (first + 1) % model.config.get_text_config().vocab_size
    before, after = (_logits(model, torch.cat([beginning, *later]))[len(first) :] for beginning in (first, changed))
    return _largest_difference([before], [after])


def _packed_against_alone(model: Any, documents: list[Any], alone: list[Any]) -> float:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": document.tolist()} for document in documents])
    del batch["labels"]
    packed = _logits(model, **batch).split(DOCUMENT_LENGTHS)
    return _largest_difference(packed, alone)


def _masked_against_alone(model: Any, documents: list[Any], alone: list[Any]) -> float:
    handle = mask(model)
    try:
        return _packed_against_alone(model, documents, alone)
    except (ValueError, TypeError, RuntimeError):  # a model that takes no such mask says so in its own way
        return math.inf
    finally:
        handle.remove()
