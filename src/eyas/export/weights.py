"""Every weight of a merge against the base it was trained on and the adapter's file."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eyas.export.update import LayerUpdate
from eyas.model.saved import digest


@dataclass(frozen=True)
class Weights:
    """What a merge made of each weight. `faults` are sentences; empty where every weight is what it should be."""

    updates: tuple[LayerUpdate, ...]
    in_full: int
    """Tensors that were trained in full, and are those of the file bit for bit."""
    untouched: int
    """Tensors that are those of the base bit for bit."""
    unchecked: tuple[str, ...]
    """Modules whose update is of a kind that is not computed again here."""
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
        worst = max(self.updates, key=lambda update: update.error, default=None)
        parts = [f"{self.untouched} tensors are the base's, bit for bit"]
        if worst is not None:
            parts = [
                f"{len(self.updates)} updates are the adapter file's (worst: {worst.error:.1e} of it, {worst.name})",
                *parts,
            ]
        if self.in_full:
            parts.append(f"{self.in_full} tensors are the file's, bit for bit")
        if self.unchecked:
            parts.append(f"{len(self.unchecked)} updates could not be computed again, such as {self.unchecked[0]}")
        return "weights: " + "; ".join(parts)


def digests(model: Any, change: Callable[[str, Any], Any] = lambda _name, tensor: tensor) -> dict[str, str]:
    """Return the digest of each tensor of a model's state, after a change to it."""
    return {name: digest(change(name, tensor)) for name, tensor in model.state_dict().items()}


def within(name: str, modules: Iterable[str]) -> bool:
    """Return whether a tensor belongs to one of these modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def all_others(
    merged: Any, in_full: Mapping[str, Any], base: Mapping[str, str], updated: set[str], unchecked: list[str]
) -> tuple[int, list[str]]:
    """Return how many tensors are the base's, and a sentence on each that is neither that nor what was trained."""
    state, faults, untouched = merged.state_dict(), [], 0
    changed = {name for name in state if name in updated or name in in_full or within(name, unchecked)}
    shared = {state[name].data_ptr() for name in changed}  # a tied weight has both of its names
    for name, tensor in state.items():
        if name in updated or within(name, unchecked):
            continue
        if name in in_full:
            if not bool((tensor == in_full[name].to(tensor)).all()):
                faults.append(f"{name}: was trained in full, and is not what the adapter's file holds")
        elif digest(tensor) == base.get(name):
            untouched += 1
        elif tensor.data_ptr() not in shared:
            faults.append(f"{name}: is not the base's, though the adapter does not change it")
    faults += [f"{name}: is in the base and not in the merged model" for name in base.keys() - state.keys()]
    return untouched, faults
