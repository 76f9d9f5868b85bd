"""The recipe: one schema for the whole life of a run."""

from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from eyas.errors import RecipeError
from eyas.recipe.adapter import Adapter
from eyas.recipe.data import Data
from eyas.recipe.evaluation import Evaluation
from eyas.recipe.export import Export
from eyas.recipe.model import DType, Model, Quantization
from eyas.recipe.section import Section
from eyas.recipe.speed import Speed
from eyas.recipe.task_traits import traits_of
from eyas.recipe.tracking import Tracking
from eyas.recipe.training import Training
from eyas.recipe.watchdog import Watchdog
from eyas.recipe.yaml_reader import read_scalar


class _Dumper(yaml.SafeDumper):
    """Quotes words that `read_yaml` would read as numbers.

    PyYAML alone quotes only YAML 1.1 numbers.
    """


def _represent_word(dumper: yaml.SafeDumper, word: str) -> yaml.Node:
    style = None if isinstance(read_scalar(word), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", word, style=style)


_Dumper.add_representer(str, _represent_word)


class Recipe(Section):
    """A model, its data, its training, and the evaluation of the result."""

    task: Literal["sft", "sequence_classification", "token_classification"] = Field(
        description="The task that the model is trained for."
    )
    model: Model = Field(description="The base model.")
    quantization: Quantization | None = Field(
        None, description="Quantization of the frozen base; left out, full precision."
    )
    adapter: Adapter | None = Field(None, description="Train an adapter; left out, the whole model.")
    data: Data = Field(description="Training and held-out rows.")
    training: Training = Field(Training(), description="Steps, batch size and optimizer.")
    speed: Speed = Field(Speed(), description="Optional optimizations.")
    evaluation: Evaluation = Field(Evaluation(), description="Scores after training.")
    export: Export = Field(Export(), description="Merging of the adapter into the base.")
    tracking: Tracking = Field(Tracking(), description="Experiment tracker.")
    watchdog: Watchdog = Field(Watchdog(), description="Time limits for a rank without progress.")
    run_directory: str | None = Field(None, description="Folder of the run; left out, `runs/<name of the recipe>`.")

    @model_validator(mode="before")
    @classmethod
    def _with_the_defaults_of_the_task(cls, value: Any) -> Any:
        defaults = traits_of(value.get("task")).defaults if isinstance(value, dict) else {}
        if not defaults or not isinstance(value.get("training", {}), dict):
            return value
        return {**value, "training": {**defaults, **value.get("training", {})}}

    @property
    def run_folder(self) -> str:
        """Return the folder of the run. A recipe from a file always has one.

        Raises RecipeError for a recipe from Python without `run_directory`.
        """
        if self.run_directory is None:
            raise RecipeError(
                "run_directory: missing; a recipe that is not read from a file must name its run's folder"
            )
        return self.run_directory

    @property
    def merged_dtype(self) -> DType:
        """Return the dtype of the merged weights."""
        return self.export.dtype or self.model.dtype

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with every default written out."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
