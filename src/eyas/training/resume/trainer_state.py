"""Per-rank trainer state that Trainer's checkpoints omit: running loss, token counts, metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eyas.distributed.topology import rank, world_size
from eyas.errors import CheckpointError
from eyas.files import read_json
from eyas.training.library_patches import restore_running_sums, running_sums

if TYPE_CHECKING:
    from transformers import Trainer


class Stateful(Protocol):
    """An object whose state a checkpoint keeps as plain numbers and lists."""

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, ready for JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""


def save_trainer_state(trainer: "Trainer", folder: Path, stateful: Mapping[str, Stateful]) -> None:
    """Write this rank's running sums and the named objects' state into a checkpoint."""
    state = {**running_sums(trainer), "ours": {name: part.state() for name, part in stateful.items()}}
    folder.mkdir(parents=True, exist_ok=True)  # of several ranks only one has written so far
    _file(folder, rank()).write_text(json.dumps(state), encoding="utf-8")


def restore_trainer_state(trainer: "Trainer", folder: Path, stateful: Mapping[str, Stateful]) -> None:
    """Restore this rank's state from a checkpoint, once the trainer's loop has set its sums to zero.

    On another number of ranks each takes the mean of all ranks' losses, and other random numbers.
    """
    states = [_state_in(file) for file in folder.glob("loop_state_*.json")]
    state = states[0]
    if len(states) == world_size():
        state = _state_in(_file(folder, rank()))
    else:
        from transformers import set_seed

        state["loss_since_logged"] = sum(each["loss_since_logged"] for each in states) / len(states)
        set_seed(trainer.args.seed + trainer.state.global_step * world_size() + rank() + 1)
    restore_running_sums(trainer, state)
    for name, part in stateful.items():
        if name in state["ours"]:  # a changed recipe may have one more since
            part.restore(state["ours"][name])


def _state_in(file: Path) -> dict[str, Any]:
    try:
        state = read_json(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: is not what was saved: {error}; resume from an earlier checkpoint") from None
    if not {"loss_since_logged", "ours"} <= state.keys():
        raise CheckpointError(f"{file}: is not what was saved; resume from an earlier checkpoint")
    return state


def _file(folder: Path, index: int) -> Path:
    return folder / f"loop_state_{index}.json"
