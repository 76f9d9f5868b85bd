"""What probes found out about a model, kept for its next start under all that decides it."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eyas.distributed.topology import rank, running_topology
from eyas.files import digest_of_files, write_json
from eyas.hardware import arithmetic
from eyas.preflight.versions import installed_versions
from eyas.recipe import Recipe

logger = logging.getLogger(__name__)

SECTIONS = {"task": True, "model": True, "quantization": True, "adapter": True, "speed": True}
PINNED = re.compile(r"sha256:[0-9a-f]{64}|commit:[0-9a-f]{40}")


class Verdicts:
    """Answers to questions about one model on one machine: those that were kept, and those that are asked now."""

    def __init__(self, file: Path | None, key: Mapping[str, Any]) -> None:
        """Read what `file` holds for this key; without a file nothing is read or kept."""
        self._file, self._key = file, key
        self._kept = {} if file is None or not file.exists() else _read(file, key)
        self._asked: dict[str, Any] = {}

    def of(self, question: str, ask: Callable[[], Any]) -> Any:
        """Return the answer that was kept, or ask. An answer is made of numbers, text and lists."""
        if question in self._kept:
            return self._kept[question]
        self._asked[question] = answer = ask()
        return answer

    def keep(self) -> None:
        """Keep what was asked now for the next start."""
        if self._file is None or not self._asked or rank() != 0:
            return
        try:
            write_json(self._file, {"key": self._key, "answers": self._kept | self._asked})
        except OSError as error:
            logger.warning("%s cannot be written: %s; the next start asks the model again", self._file, error.strerror)


def verdicts_on(recipe: Recipe, trainer: Any, base: str) -> Verdicts:
    """Return the verdicts on the model that a trainer is about to train, its 4-bit weights unpacked or not.

    None are kept where nothing pins the base, or where its code comes from elsewhere.
    """
    key = _key(recipe, trainer, base)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    pinned = PINNED.fullmatch(base) and not recipe.model.trust_remote_code
    return Verdicts(Path(recipe.data.cache_directory, "verdicts", f"{digest[:16]}.json") if pinned else None, key)


def _key(recipe: Recipe, trainer: Any, base: str) -> dict[str, Any]:
    model, training = trainer.model, recipe.training
    built = [repr(model), model.config.to_json_string(), str(model.config._attn_implementation)]
    built += [f"{name} {each.dtype} {each.requires_grad}" for name, each in model.named_parameters()]
    built += [name for name, module in model.named_modules() if "dense_weight" in vars(module)]
    return {
        "base": base,
        "built": hashlib.sha256("\n".join(built).encode()).hexdigest(),
        "recipe": recipe.model_dump(mode="json", include=SECTIONS),
        "seed": training.seed,
        "library_arguments": training.model_dump(mode="json", include=set(training.library_arguments)),
        "precision": str(trainer.accelerator.mixed_precision),
        "strategy": running_topology(trainer.accelerator).strategy,
        "arithmetic": arithmetic(),
        "eyas": digest_of_files(Path(__file__).parents[1].rglob("*.py")),
        "versions": installed_versions(),
    }


def _read(file: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["key"] == key:
            logger.info("what the model was shown to do: read again from %s", file)
            return dict(found["answers"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    logger.warning("%s is not what was written; asking the model again", file)
    return {}
