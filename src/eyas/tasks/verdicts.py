"""What probes found out about a model, kept for its next start under all that decides it."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eyas.distributed.topology import rank, running_topology
from eyas.errors import CheckpointError
from eyas.files import digest_of_files
from eyas.hardware import arithmetic
from eyas.preflight.versions import installed_versions
from eyas.recipe import Recipe
from eyas.sealing import read_seal, seal

logger = logging.getLogger(__name__)

SECTIONS = {"task", "model", "quantization", "adapter", "training", "speed"}
PINNED = re.compile(r"sha256:[0-9a-f]{64}|commit:[0-9a-f]{40}")


class Verdicts:
    """Answers to questions about one model on one machine: those that were kept, and those that are asked now."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        """Read what a sealed folder holds for this key; without a folder nothing is read or kept."""
        self._folder, self._key = folder, key
        self._kept = {} if folder is None or not folder.exists() else _read(folder, key)
        self._asked: dict[str, Any] = {}

    def of(self, question: str, ask: Callable[[], Any]) -> Any:
        """Return the answer that was kept, or ask. An answer is made of numbers, text and lists."""
        if question in self._kept:
            return self._kept[question]
        self._asked[question] = answer = ask()
        return answer

    def keep(self) -> None:
        """Keep what was asked now for the next start."""
        if self._folder is None or not self._asked or rank() != 0:
            return
        staging = self._folder.with_name(f".{self._folder.name}.{os.getpid()}")
        try:
            staging.mkdir(parents=True)
            seal(staging, self._folder, {"key": self._key, "answers": self._kept | self._asked})
        except OSError as error:
            logger.warning(
                "%s cannot be written: %s; the next start asks the model again", self._folder, error.strerror
            )


def verdicts_on(recipe: Recipe, trainer: Any, base: str) -> Verdicts:
    """Return the verdicts on the model that a trainer is about to train, its 4-bit weights unpacked or not.

    None are kept where nothing pins the base, or where its code comes from elsewhere.
    """
    key = _key(recipe, trainer, base)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    pinned = PINNED.fullmatch(base) and not recipe.model.trust_remote_code
    return Verdicts(Path(recipe.data.cache_directory, "verdicts", digest[:16]) if pinned else None, key)


def _key(recipe: Recipe, trainer: Any, base: str) -> dict[str, Any]:
    model = trainer.model
    built = [repr(model), model.config.to_json_string(), str(model.config._attn_implementation)]
    built += [f"{name} {each.dtype} {each.requires_grad}" for name, each in model.named_parameters()]
    built += [name for name, module in model.named_modules() if "dense_weight" in vars(module)]
    return {
        "base": base,
        "built": hashlib.sha256("\n".join(built).encode()).hexdigest(),
        "recipe": recipe.model_dump(mode="json", include=SECTIONS),
        "precision": str(trainer.accelerator.mixed_precision),
        "strategy": running_topology(trainer.accelerator).strategy,
        "arithmetic": arithmetic(),
        "eyas": digest_of_files(Path(__file__).parents[1].rglob("*.py")),
        "versions": installed_versions(),
    }


def _read(folder: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = read_seal(folder)
    except CheckpointError:
        found = {}
    if found.get("key") != key:
        logger.warning("%s is not what was written; asking the model again", folder)
        return {}
    logger.info("what the model was shown to do: read again from %s", folder)
    return dict(found["answers"])
