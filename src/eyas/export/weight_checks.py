"""Checks of each merged weight against base and adapter file."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eyas.export.update import LayerUpdate
from eyas.model.saved import digest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class WeightChecks:
    """Result of the checks. `faults` holds one sentence for each wrong weight."""

    updates: tuple[LayerUpdate, ...]
    in_full: int
    """Tensors trained in full that equal the file's, bit for bit."""
    untouched: int
    """Tensors that equal those of the base, bit for bit."""
    unchecked: tuple[str, ...]
    """Modules whose kind of update is not computed again here."""
    faults: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        worst = max(self.updates, key=lambda update: update.error, default=None)
        return {
            "updates_checked": len(self.updates),
            "worst_update": None if worst is None else {"name": worst.name, "error": worst.error},
            "trained_in_full": self.in_full,
            "untouched": self.untouched,
            "unchecked": list(self.unchecked),
        }

    def __str__(self) -> str:
        if self.faults:
            more = f"; and {len(self.faults) - 3} more" if len(self.faults) > 3 else ""
            return "weights: " + "; ".join(self.faults[:3]) + more
        parts = []
        if self.updates:
            worst = max(self.updates, key=lambda update: update.error)
            parts.append(
                f"{len(self.updates)} updates match the adapter's file (largest error {worst.error:.1e} of the update, "
                f"in {worst.name})"
            )
        parts.append(f"{self.untouched} tensors equal the base's, bit for bit")
        if self.in_full:
            parts.append(f"{self.in_full} tensors equal the file's, bit for bit")
        if self.unchecked:
            parts.append(f"{len(self.unchecked)} updates were not computed again, such as {self.unchecked[0]}")
        return "weights: " + "; ".join(parts)


def digests(
    model: "PreTrainedModel", change: Callable[[str, "Tensor"], "Tensor"] = lambda _name, tensor: tensor
) -> dict[str, str]:
    """Return the SHA-256 of each tensor, after a change to it."""
    return {name: digest(change(name, tensor)) for name, tensor in model.state_dict().items()}


def within(name: str, modules: Iterable[str]) -> bool:
    """Return whether a tensor belongs to one of these modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def check_others(
    merged: "PreTrainedModel",
    in_full: Mapping[str, "Tensor"],
    base: Mapping[str, str],
    updated: set[str],
    unchecked: list[str],
) -> tuple[int, list[str]]:
    """Count the tensors that equal the base's, and describe wrong ones.

    `in_full` are tensors of the adapter's file that were trained in full, `base` the base's digests. `updated` tensors
    and `unchecked` modules are left out.
    """
    state, faults, untouched = merged.state_dict(), [], 0
    changed = {name for name in state if name in updated or name in in_full or within(name, unchecked)}
    shared = {state[name].data_ptr() for name in changed}  # a tied weight has both of its names
    for name, tensor in state.items():
        if name in updated or within(name, unchecked):
            continue
        if name in in_full:
            if not bool((tensor == in_full[name].to(tensor)).all()):
                faults.append(f"{name}: was trained in full and differs from the adapter's file")
        elif digest(tensor) == base.get(name):
            untouched += 1
        elif tensor.data_ptr() not in shared:
            faults.append(f"{name}: differs from the base's, although the adapter does not change it")
    faults += [f"{name}: is in the base but not in the merged model" for name in base.keys() - state.keys()]
    return untouched, faults
