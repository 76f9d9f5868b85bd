"""The recipe: one schema for the whole life of a run."""

from typing import Literal

import yaml
from pydantic import Field

from eyas.recipe.adapter import Lora
from eyas.recipe.data import Data
from eyas.recipe.evaluation import Evaluation
from eyas.recipe.export import Export
from eyas.recipe.model import DType, Model, Quantization
from eyas.recipe.section import Section
from eyas.recipe.speed import Speed
from eyas.recipe.tracking import Tracking
from eyas.recipe.training import Training
from eyas.recipe.watchdog import Watchdog
from eyas.recipe.yaml_reader import read_scalar


class _Dumper(yaml.SafeDumper):
    """Quotes each word that our reader would take for a number; PyYAML knows only those of YAML 1.1."""


def _represent_word(dumper: yaml.SafeDumper, word: str) -> yaml.Node:
    style = None if isinstance(read_scalar(word), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", word, style=style)


_Dumper.add_representer(str, _represent_word)


class Recipe(Section):
    """What is trained, on what, how, and how the result is judged."""

    task: Literal["sft", "sequence_classification"] = Field(description="What the model learns to do.")
    model: Model = Field(description="The base model.")
    quantization: Quantization | None = Field(None, description="Quantize the frozen base; full precision if left out.")
    adapter: Lora | None = Field(None, description="Train an adapter; the whole model when left out.")
    data: Data = Field(description="Training and held-out rows.")
    training: Training = Field(Training(), description="Steps, batch and optimizer.")
    speed: Speed = Field(Speed(), description="What is done to be fast.")
    evaluation: Evaluation = Field(Evaluation(), description="Scores before and after.")
    export: Export = Field(Export(), description="The merged model.")
    tracking: Tracking = Field(Tracking(), description="Where curves are shown.")
    watchdog: Watchdog = Field(Watchdog(), description="When a rank that stands still ends the job.")
    run_directory: str | None = Field(None, description="Folder of the run; runs/<name of the recipe> if left out.")

    @property
    def run_folder(self) -> str:
        """The run's folder; a loaded recipe always has one."""
        assert self.run_directory is not None
        return self.run_directory

    @property
    def merged_dtype(self) -> DType:
        """The dtype of the merged weights: that of the weights that were trained on, unless the recipe has another."""
        return self.export.dtype or self.model.dtype

    def to_yaml(self) -> str:
        """Return the recipe with every default written out; loading it gives an equal recipe."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
