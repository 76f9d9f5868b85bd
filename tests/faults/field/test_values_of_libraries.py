"""Names and ranges that are read without importing a library are those of the imported library."""

import inspect
from dataclasses import fields
from enum import Enum

import pytest
import torch
import transformers
import trl
from accelerate.utils import DynamoBackend, GradientAccumulationPlugin
from transformers.debug_utils import DebugOption
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames, trainer_log_levels

from eyas.metrics import accuracy
from eyas.recipe.library_limits import RANGES, problems_of, schedule_arguments, warms_up
from eyas.recipe.library_optimizers import packages_of
from eyas.recipe.library_signatures import LORA_CONFIG, SFT_CONFIG, TRAINING_ARGUMENTS, LibraryClass
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.tasks import sequence_classification, token_classification

ENUMERATIONS: dict[str, type[Enum]] = {
    "lr_scheduler_type": SchedulerType,
    "optim": OptimizerNames,
    "save_strategy": transformers.trainer_utils.SaveStrategy,
    "logging_strategy": transformers.trainer_utils.IntervalStrategy,
    "hub_strategy": transformers.trainer_utils.HubStrategy,
}
CHOICES = [(kind, field.name) for kind in (trl.SFTConfig,) for field in fields(kind) if "choices" in field.metadata]
NAMED = {
    "log_level": trainer_log_levels.keys(),
    "torch_compile_backend": {backend.value.lower() for backend in DynamoBackend},
    "torch_compile_mode": torch._inductor.list_mode_options().keys(),
    "debug": {option.value for option in DebugOption},
}


def accepts(argument, value, library=TRAINING_ARGUMENTS, **section):
    return not problems_of(argument, library.arguments()[argument].type, value, section)


@pytest.mark.parametrize("argument", ENUMERATIONS)
def test_an_enumeration_has_the_values_of_the_imported_class(argument):
    values = {member.value for member in ENUMERATIONS[argument]}

    assert len(values) >= 3
    assert all(accepts(argument, value) for value in values)
    assert not any(accepts(argument, value + "x") for value in values)


@pytest.mark.parametrize(("kind", "name"), CHOICES)
def test_the_choices_of_a_field_are_those_of_the_imported_class(kind, name):
    choices = next(field.metadata["choices"] for field in fields(kind) if field.name == name)

    assert all(accepts(name, choice, SFT_CONFIG) for choice in choices)
    assert not accepts(name, "something else", SFT_CONFIG)


@pytest.mark.parametrize("argument", NAMED)
def test_names_without_an_enumeration_are_those_of_the_imported_library(argument):
    assert len(NAMED[argument]) >= 2
    assert all(accepts(argument, name) for name in NAMED[argument])
    assert not accepts(argument, "something else")


@pytest.mark.parametrize("schedule", SchedulerType)
def test_a_schedule_has_the_arguments_of_the_imported_function(schedule):
    function = TYPE_TO_SCHEDULER_FUNCTION[schedule]
    parameters = dict(inspect.signature(function).parameters)
    if "kwargs" in parameters:
        passed_to = {"greedy": transformers.optimization.GreedyLR}
        kind = passed_to.get(schedule.value, torch.optim.lr_scheduler.ReduceLROnPlateau)
        parameters = dict(inspect.signature(kind).parameters)
    trainers = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}

    read = schedule_arguments(schedule.value)

    assert read.keys() == parameters.keys() - trainers
    empty = inspect.Parameter.empty
    assert {name for name, each in read.items() if each.required} == {
        name for name in read if parameters[name].default is empty
    }
    assert warms_up(schedule.value) == ("num_warmup_steps" in inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("argument", "kind"), [("accelerator_config", AcceleratorConfig), ("gradient_accumulation_kwargs", None)]
)
def test_a_nested_mapping_has_the_fields_of_the_imported_class(argument, kind):
    for field in fields(kind or GradientAccumulationPlugin):
        value = {field.name: field.default if not callable(field.default) else None}
        value = value if kind else {"gradient_accumulation_kwargs": value}
        assert accepts("accelerator_config", value) == (field.name != "num_steps")


@pytest.mark.parametrize("optimizer", OptimizerNames)
def test_an_optimizers_packages_are_those_that_its_imported_function_imports(optimizer):
    source = inspect.getsource(_OPTIMIZER_HANDLERS[optimizer])
    imported = {line.split()[1].partition(".")[0] for line in source.splitlines() if line.strip().startswith("from ")}

    assert packages_of(optimizer.value) == imported - {"", "torch"}
    assert ("bitsandbytes" in packages_of(optimizer.value)) == ("bitsandbytes" in source)


@pytest.mark.parametrize("beta", [0.0, 0.999999, 1.0, -0.1, 2.0])
def test_the_range_of_betas_is_torchs(beta):
    try:
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], betas=(beta, 0.9))
        taken = True
    except ValueError:
        taken = False

    assert accepts("adam_beta1", beta) == taken


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 1.01, 2.0])
def test_the_range_of_label_smoothing_is_torchs(smoothing):
    try:
        torch.nn.functional.cross_entropy(torch.zeros(1, 2), torch.tensor([0]), label_smoothing=smoothing)
        taken = True
    except RuntimeError:
        taken = False

    assert accepts("label_smoothing_factor", smoothing) == taken


@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float64", "int4", "bool"])
def test_the_storage_types_are_those_of_transformers(dtype):
    library = LibraryClass("transformers.BitsAndBytesConfig")
    try:
        transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=dtype)
        taken = True
    except ValueError:
        taken = False

    assert accepts("bnb_4bit_quant_storage", dtype, library) == taken


def test_every_range_is_of_an_argument_that_exists():
    libraries = [SFT_CONFIG, LORA_CONFIG, *map(LibraryClass, ("transformers.BitsAndBytesConfig", "peft.VeraConfig"))]
    arguments = set().union(*(library.arguments() for library in libraries))

    assert len(RANGES) >= 25
    assert RANGES.keys() - arguments == set()


def test_the_measures_of_a_task_are_those_that_it_computes():
    class Prediction:
        predictions = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).numpy()
        label_ids = torch.tensor([1, 1]).numpy()

    class Tagged:
        predictions = torch.zeros(1, 2, 2).numpy()
        label_ids = torch.tensor([[0, 1]]).numpy()

    scores = sequence_classification._scores(Prediction)
    tags = token_classification._scores(Tagged, ["O", "B-x"])

    assert scores["accuracy"] == accuracy([1, 0], [1, 1]) == 0.5
    assert set(scores) == set(TASK_TRAITS["sequence_classification"].measures)
    assert set(tags) == set(TASK_TRAITS["token_classification"].measures)
