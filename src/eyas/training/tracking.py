"""Trackers mirror a run; one that is down does not stop it."""

import logging
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 4.0


def start_tracker(recipe: Recipe, run: RunDirectory, trainer: "Trainer", step: int) -> None:
    """Attach the recipe's tracker to the trainer.

    wandb records offline, with a warning, when its server is unreachable. A run that resumes from a `step` continues
    its own record. By itself, wandb 0.31 waits 90 s for a server that is down and then ends the run. Call it on rank 0
    only.
    """
    if recipe.tracking.report_to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        trainer.add_callback(TensorBoardCallback(SummaryWriter(log_dir=str(run.tracker), purge_step=step + 1)))
    if recipe.tracking.report_to == "wandb":
        from transformers.integrations import WandbCallback

        run.record(wandb_run=_start_wandb(recipe, run))
        trainer.add_callback(WandbCallback())


def _start_wandb(recipe: Recipe, run: RunDirectory) -> str:
    """Start a record, or continue the run's own, and return its id."""
    import wandb

    run.tracker.mkdir(parents=True, exist_ok=True)
    common = {
        "project": recipe.tracking.project,
        "name": run.path.name,
        "dir": str(run.tracker),
        "id": run.read_manifest().get("wandb_run"),
        "resume": "allow",
        "config": recipe.model_dump(mode="json"),
        "settings": wandb.Settings(init_timeout=PATIENCE_SECONDS, silent=True, console="off", disable_git=True),
    }
    if recipe.tracking.mode == "online":
        reason = _why_offline(wandb)
        if reason is None:
            try:
                return str(wandb.init(mode="online", **common).id)
            except wandb.Error as error:  # the server answers, and refuses a record
                reason = str(error)
        logger.warning("wandb: %s. Recording offline in %s; send it later with `wandb sync`", reason, run.tracker)
    return str(wandb.init(mode="offline", **common).id)


def _why_offline(wandb: Any) -> str | None:
    """Return why an online record cannot start, or None when it can."""
    address = urlsplit(wandb.setup().settings.base_url)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE_SECONDS).close()
    except OSError as error:
        return f"{address.hostname}:{port} does not answer ({error})"
    if not wandb.api.api_key:
        return "no login (run `wandb login`)"
    return None
