"""Errors and warnings of peft, as text that names the setting."""

import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.errors import PreflightError
from eyas.model.quantization import HEADS
from eyas.recipe.adapter import AdapterSection

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

WITHOUT_EFFECT = (
    "has no bias|no parameter was matched|will be ignored|no modules were excluded|no tied modules"
    "|no module was matched|set to True but the target"
)
"""Words of peft 0.21's warnings that a setting does nothing, or that its result cannot be merged."""

HANDLED = (
    "a tied layer is part of the adapter|tied_target_modules|no longer tied|set to False but the target"
    "|did not match any targeted module|copying from a non-meta parameter"
)
"""Words of its warnings about cases that are handled here.

A merge unties embeddings, peft itself turns Conv1D's weights, `refuse_what_cannot_train` refuses patterns of no layer,
and a rehearsal opens virtual tokens on the meta device, which takes no values.
"""


@contextmanager
def pefts_refusals() -> Iterator[None]:
    """Turn peft's own errors, and its warnings that a setting does nothing, into PreflightErrors.

    Errors of other libraries keep their traceback, and their warnings stay warnings.
    """
    unused: set[str] = set()
    show = warnings.showwarning

    def collect(message: Any, *where: Any, **more: Any) -> None:
        if re.search(WITHOUT_EFFECT, str(message)):
            unused.add(str(message))
        else:
            show(message, *where, **more)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=rf"(?s).*({WITHOUT_EFFECT})")
        warnings.filterwarnings("ignore", message=rf"(?s).*({HANDLED})")
        warnings.showwarning = collect
        try:
            yield
        except Exception as error:
            if not _is_pefts(error):
                raise
            raise PreflightError(_at_its_setting(str(error))) from error
    if unused:
        raise PreflightError("\n".join(map(_at_its_setting, sorted(unused))))


def refuse_what_cannot_train(wrapped: "PeftModel", adapter: AdapterSection) -> None:
    """Refuse settings of peft that train nothing, or an unused layer.

    Raises PreflightError.
    """
    _refuse_absent_bias(wrapped, adapter)
    names = wrapped.base_model.targeted_module_names
    for key in ("rank_pattern", "alpha_pattern"):  # peft turns those of experts into those of their parameters
        for pattern in {} if wrapped.base_model.targeted_parameter_names else adapter.library_arguments.get(key) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                raise PreflightError(f"adapter.{key}: '{pattern}' matches no layer that the adapter sits on; remove it")
    _refuse_adapted_head(wrapped, adapter)


def refuse_overlap(
    adapter: AdapterSection, task_type: str, empty: "PreTrainedModel", matches: Mapping[str, Sequence[str]]
) -> None:
    """Refuse targets that peft would also train in full. Raises PreflightError.

    peft 0.21 leaves layers out of the targets by whole names, but wraps them by endings: `classifier` wraps
    DistilBERT's `pre_classifier` too. `matches` are the layers of each target.
    """
    import torch

    in_full = (*adapter.trained_in_full, *(() if task_type == "CAUSAL_LM" else HEADS))
    targets = {name for names in matches.values() for name in names}
    if adapter.targets == "all-linear":
        targets = {name for name, module in empty.named_modules() if isinstance(module, torch.nn.Linear)}
    left_out = re.compile(rf"(?:.*\.)?(?:{'|'.join(in_full) or '$^'})(?:\..*)?")
    both = sorted(name for name in targets if name.endswith(in_full) and not left_out.fullmatch(name))
    if both:
        raise PreflightError(
            f"adapter.target_modules: {', '.join(both)}: the adapter trains every layer in full whose name ends in "
            f"{', '.join(in_full)}, and cannot update it as well; add adapter.modules_to_save: [{', '.join(both)}]"
        )


def refuse_quantized_in_full(quantized: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse to train layers in full that a base holds quantized. Raises PreflightError.

    `trained` are the names of the trainable parameters in the wrapped model.
    """
    in_full = [name.replace(".modules_to_save.default", "") for name in trained if ".modules_to_save." in name]
    both = [layer for layer in quantized if any(name.endswith(f".{layer}.weight") for name in in_full)]
    if both:
        raise PreflightError(
            f"adapter.modules_to_save: {both[0]}: the base holds it quantized, and it cannot be trained in full; "
            "remove it, or name a base in full precision"
        )


def _refuse_absent_bias(wrapped: "PeftModel", adapter: AdapterSection) -> None:
    bias = adapter.library_arguments.get("bias", "none")
    trained = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    if bias != "none" and not any(name.endswith(".bias") and ".default." not in name for name in trained):
        raise PreflightError(f"adapter.bias: {bias} would train no bias: the selected layers have none; remove it")


def _refuse_adapted_head(wrapped: "PeftModel", adapter: AdapterSection) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    head = getattr(wrapped, "get_output_embeddings", lambda: None)()
    if wrapped.peft_config["default"].task_type == "CAUSAL_LM" and isinstance(head, BaseTunerLayer):
        tied = adapter.library_arguments.get("ensure_weight_tying")
        raise PreflightError(
            "adapter.target_modules: a low-rank update of the output head would never train: the trainer multiplies by "
            "the head's own weight. "
            + (
                "Remove adapter.ensure_weight_tying, which puts one there, or name the embeddings in "
                "adapter.modules_to_save instead"
                if tied
                else "Leave it out, or name the head in adapter.modules_to_save instead"
            )
        )


def _is_pefts(error: BaseException) -> bool:
    """Return whether a line of peft raised an error."""
    return "peft" in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts


def _at_its_setting(message: str) -> str:
    """Return peft's message on one line, after the setting that it names first."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    # Names without an underscore are words of a sentence as well: bias, sparse, scaling.
    fields = {name for config in PEFT_TYPE_TO_CONFIG_MAPPING.values() for name in config.__dataclass_fields__}
    named = next((word for word in re.findall(r"\w+", message) if word in fields and "_" in word), None)
    where = "adapter" if named is None else f"adapter.{named}"
    return f"{where}: peft refuses it: {' '.join(message.split())}"
