"""Parameters of a model: how many there are, how many train, and in which modules."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module, Parameter


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model, those of its adapter included, as peft counts them."""

    trainable: int
    total: int

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters ({self.trainable / self.total:.2%})"


def count_parameters(model: "Module") -> ParameterCount:
    """Return the parameters of a model, wherever they are: packed in 4 bits, sharded, or on the meta device."""
    return ParameterCount(
        trainable=sum(size_of(parameter) for parameter in model.parameters() if parameter.requires_grad),
        total=sum(size_of(parameter) for parameter in model.parameters()),
    )


def size_of(parameter: "Parameter") -> int:
    """Return the number of weights in a parameter, also sharded or packed in 4 bits."""
    if hasattr(parameter, "ds_numel"):
        return int(parameter.ds_numel)
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(parameter.numel())


def trained_parts(model: "Module") -> dict[str, list[str]]:
    """Return the modules of the base that an adapter trains, by the last part of their names.

    They are read from the wrapped model. peft wraps more than a pattern's modules: experts' tensors, routers, Conv1D.
    """
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrappers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        and not isinstance(module, TrainableTokensLayer)
    }
    parts: dict[str, dict[str, None]] = {}
    for name in (name for name, parameter in model.named_parameters() if parameter.requires_grad):
        owner = next((above for above in _above(name) if above in wrappers), None)
        part = name if owner is None else owner + _kind_of(wrappers[owner])
        part = base_name(part)
        leaf = part.rpartition(".")[2] if owner is not None else part
        parts.setdefault(leaf, {})[part] = None
    return {leaf: list(modules) for leaf, modules in parts.items()}


def base_name(name: str) -> str:
    """Return the name that a module or parameter of a wrapped model has in the base."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _above(name: str) -> list[str]:
    """Return the names of the modules around a parameter, the innermost first."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def _kind_of(wrapper: "Module") -> str:
    """Return what a wrapper trains of its module, where that is not a low-rank update of a whole layer."""
    from peft.tuners.lora.layer import ParamWrapper
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    if isinstance(wrapper, ParamWrapper):
        return f" ({wrapper.parameter_name})"
    return {ModulesToSaveWrapper: " (in full)", TrainableTokensWrapper: " (tokens)"}.get(type(wrapper), "")
