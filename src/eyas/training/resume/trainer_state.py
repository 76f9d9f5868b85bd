"""What the library's loop counts and its checkpoints leave out, kept beside them for each rank."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from eyas.distributed.topology import rank, world_size


class Stateful(Protocol):
    """Something of ours that a resumed run must find as it was; plain numbers and lists."""

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


def save_loop_state(trainer: Any, folder: Path, ours: Mapping[str, Stateful]) -> None:
    """Write this rank's running sums into a checkpoint.

    transformers 5.23 starts the loss that it logs, and its mean over the run, again at zero after a resume; TRL 1.16
    its token count and the metrics that it averages. All are plain numbers, which JSON keeps to the last bit.
    """
    state = {
        "loss_since_logged": trainer._tr_loss.item(),
        "loss_logged": trainer._total_loss_scalar,
        "step_logged": trainer._globalstep_last_logged,
        "first_step": trainer._initial_global_step,
        "metrics": getattr(trainer, "_metrics", {}).get("train", {}),
        "tokens": getattr(trainer, "_total_train_tokens", None),
        "ours": {name: part.state() for name, part in ours.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)  # of several ranks only one has written so far
    _file(folder, rank()).write_text(json.dumps(state), encoding="utf-8")


def restore_loop_state(trainer: Any, folder: Path, ours: Mapping[str, Stateful]) -> None:
    """Give the trainer this rank's running sums back. Called once its loop has set them to zero.

    On another number of ranks each takes the mean of what they all had, and draws other random numbers.
    """
    states = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("loop_state_*.json")]
    state = states[0]
    if len(states) == world_size():
        state = json.loads(_file(folder, rank()).read_text(encoding="utf-8"))
    else:
        from transformers import set_seed

        state["loss_since_logged"] = sum(each["loss_since_logged"] for each in states) / len(states)
        set_seed(trainer.args.seed + trainer.state.global_step * world_size() + rank() + 1)
    trainer._tr_loss += state["loss_since_logged"]
    trainer._total_loss_scalar = state["loss_logged"]
    trainer._globalstep_last_logged = state["step_logged"]
    trainer._initial_global_step = state["first_step"]
    if state["tokens"] is not None:
        trainer._metrics["train"].update(state["metrics"])
        trainer._total_train_tokens = state["tokens"]
    for name, part in ours.items():
        if name in state["ours"]:  # a recipe that was changed since may ask for one more
            part.restore(state["ours"][name])


def _file(folder: Path, index: int) -> Path:
    return folder / f"loop_state_{index}.json"
