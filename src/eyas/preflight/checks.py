"""Checks of files, folders and packages that a recipe needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from eyas.errors import PreflightError
from eyas.files import read_json
from eyas.hub.local_code import digest_of_code
from eyas.hub.model_files import ADAPTER
from eyas.recipe import Recipe
from eyas.recipe.library_models import model_types
from eyas.recipe.library_optimizers import packages_of
from eyas.recipe.source import IN_A_PACKAGE
from eyas.recipe.task_traits import TASK_TRAITS


@dataclass(frozen=True)
class Finding:
    """A problem or a note about a run, known before its start."""

    what: str
    where: str
    blocking: bool
    do: str

    def __str__(self) -> str:
        return f"{'refused' if self.blocking else 'note'}: {self.where}: {self.what}; {self.do}"


def check(recipe: Recipe) -> list[Finding]:
    """Return all findings that need neither torch nor a connection."""
    return [
        *_missing_data(recipe),
        *_missing_packages(recipe),
        *_nothing_held_out(recipe),
        *_model_folder(recipe),
        *_local_code(recipe),
        *_model_kind(recipe),
    ]


def refuse_if_blocked(findings: list[Finding]) -> None:
    """Raise PreflightError with all blocking findings, if there are any."""
    blocking = [str(finding) for finding in findings if finding.blocking]
    if blocking:
        raise PreflightError("\n".join(blocking))


def _missing_data(recipe: Recipe) -> Iterator[Finding]:
    sources = [("data.train.path", source) for source in recipe.data.training_sources]
    sources += [(f"data.{name}.path", source) for name, source in recipe.data.held_out_sources.items()]
    for where, source in sources:
        if not source.is_local or source.path.startswith(IN_A_PACKAGE) or source.local_paths():
            continue
        hint = "run `eyas demo` first" if source.path.startswith("demo/") else "name a file here or a hub dataset"
        yield Finding(f"{source.path} does not exist", where, True, hint)


def _missing_packages(recipe: Recipe) -> Iterator[Finding]:
    if recipe.data.near_duplicates is not None and find_spec("rensa") is None:
        yield Finding("rensa is not installed", "data.near_duplicates", True, "pip install 'eyas[leakage]'")
    if recipe.tracking.report_to == "tensorboard" and find_spec("tensorboard") is None:
        yield Finding("tensorboard is not installed", "tracking.report_to", True, "pip install 'eyas[tensorboard]'")
    arguments = recipe.training.library_arguments
    optimizer = arguments.get("optim")
    needed = {"training.optim": (str(optimizer), packages_of(optimizer))}
    if arguments.get("use_liger_kernel"):
        needed["training.use_liger_kernel"] = ("it", frozenset({"liger_kernel"}))
    for where, (name, packages) in needed.items():
        for package in sorted(package for package in packages if find_spec(package) is None):
            yield Finding(f"{name} needs the package {package}, which is not installed", where, True, "install it")


def _nothing_held_out(recipe: Recipe) -> Iterator[Finding]:
    if recipe.data.evaluation is None and recipe.data.holdout is None:
        yield Finding(
            "no held-out rows", "data.evaluation", False, "merge probes and the report will use training rows"
        )


def _model_folder(recipe: Recipe) -> Iterator[Finding]:
    name = recipe.model.name
    if not recipe.model.is_local:
        return
    model, adapter = ((Path(name) / file).is_file() for file in ("config.json", ADAPTER))
    if model and adapter:
        hint = "merge it into the weights, or move it to a folder of its own"
        yield Finding(
            f"{name} has an {ADAPTER} next to its weights, which would load with them", "model.name", True, hint
        )
    elif adapter:
        yield Finding(f"{name} is an adapter", "model.name", True, "name the base model")
    elif not model:
        hint = "run `eyas demo` first" if name.startswith("demo/") else "name a model folder or a hub id"
        yield Finding(f"{name} is not a folder with a config.json", "model.name", True, hint)


def _local_code(recipe: Recipe) -> Iterator[Finding]:
    model = recipe.model
    if not (model.trust_remote_code and model.is_local and Path(model.name).is_dir()):
        return
    digest = digest_of_code(Path(model.name))
    if digest != model.code_sha256:
        what = f"the code in {model.name} has the digest {digest}, the recipe {model.code_sha256 or 'none'}"
        yield Finding(what, "model.code_sha256", True, f"read the code, then set model.code_sha256: {digest}")


def _model_kind(recipe: Recipe) -> Iterator[Finding]:
    """Yield a finding for a local model of a kind that the task cannot train."""
    try:
        config = read_json(Path(recipe.model.name) / "config.json")
    except (OSError, ValueError):  # a hub id, or a folder that is refused elsewhere
        return
    kind = config.get("model_type")
    if kind is None or "auto_map" in config or kind in model_types(TASK_TRAITS[recipe.task].models):
        return
    what = f"{recipe.model.name} is a {kind} model, and transformers has none of that kind for task {recipe.task}"
    yield Finding(what, "model.name", True, "name another model, or change the task")
