import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from eyas.recipe.library_signatures import (
    BITS_AND_BYTES_CONFIG,
    LORA_CONFIG,
    SFT_CONFIG,
    TRAINING_ARGUMENTS,
    LibraryClass,
    refusals,
)


@pytest.mark.parametrize(
    ("library", "not_offered"),
    [
        (SFT_CONFIG, set()),
        (TRAINING_ARGUMENTS, set()),
        (LORA_CONFIG, set()),
        (BITS_AND_BYTES_CONFIG, {"kwargs"}),
        *(
            (LibraryClass(f"peft.{name}Config"), set())
            for name in ("IA3", "Vera", "PrefixTuning", "PromptTuning", "OFT")
        ),
        (LibraryClass("trl.DPOConfig"), set()),
        (LibraryClass("trl.KTOConfig"), set()),
        (LibraryClass("transformers.Seq2SeqTrainingArguments"), set()),
    ],
)
def test_the_arguments_read_from_source_are_those_of_the_installed_class(library, not_offered):
    read, real = library.arguments().keys(), parameters_of(real_class(library)).keys()

    assert real - read == not_offered
    assert read - real == set()


@pytest.mark.parametrize("library", [SFT_CONFIG, TRAINING_ARGUMENTS, LORA_CONFIG, BITS_AND_BYTES_CONFIG])
def test_every_default_of_the_real_class_has_the_type_that_was_read(library):
    defaults = defaults_of(library)
    wrong = {
        name: (default, library.arguments()[name].type)
        for name, default in defaults.items()
        if refusal(library, name, default) is not None
    }

    assert len(defaults) >= 10
    assert wrong == {}


@pytest.mark.parametrize(
    ("library", "argument", "value"),
    [
        (SFT_CONFIG, "packing", True),
        (SFT_CONFIG, "eos_token", None),
        (SFT_CONFIG, "adam_beta1", 0.9),
        (SFT_CONFIG, "max_grad_norm", 1),
        (TRAINING_ARGUMENTS, "dataloader_num_workers", 2),
        (TRAINING_ARGUMENTS, "torch_compile_mode", "default"),
        (TRAINING_ARGUMENTS, "lr_scheduler_kwargs", {"num_cycles": 2}),
        (TRAINING_ARGUMENTS, "label_names", ["labels"]),
        (LORA_CONFIG, "use_rslora", True),
        (LORA_CONFIG, "bias", "lora_only"),
        (LORA_CONFIG, "layers_to_transform", [0, 1]),
        (LORA_CONFIG, "layers_to_transform", 3),
        (LORA_CONFIG, "rank_pattern", {"q_proj": 4}),
        (BITS_AND_BYTES_CONFIG, "llm_int8_threshold", 6.0),
    ],
)
def test_a_value_of_the_right_type_is_accepted(library, argument, value):
    assert refusal(library, argument, value) is None


@pytest.mark.parametrize(
    ("library", "argument", "value", "why"),
    [
        (SFT_CONFIG, "packing", "yes", "Input should be a valid boolean"),
        (SFT_CONFIG, "packing", 1, "Input should be a valid boolean"),
        (SFT_CONFIG, "adam_beta1", "0.9", "Input should be a valid number"),
        (SFT_CONFIG, "loss_type", ["nll"], "Input should be 'nll', 'dft' or 'chunked_nll'"),
        (TRAINING_ARGUMENTS, "dataloader_num_workers", 1.5, "Input should be a valid integer"),
        (TRAINING_ARGUMENTS, "dataloader_num_workers", None, "Input should be a valid integer"),
        (TRAINING_ARGUMENTS, "label_names", "labels", "Input should be a valid list"),
        (LORA_CONFIG, "use_rslora", "true", "Input should be a valid boolean"),
        (LORA_CONFIG, "bias", "everything", "Input should be 'none', 'all' or 'lora_only'"),
        (
            LORA_CONFIG,
            "init_lora_weights",
            "pissa_niter_",
            "Input should be a valid boolean or Input should be 'gaussian', 'eva', 'olora', 'pissa', 'corda', 'loftq', "
            "'orthogonal' or 'mica' or String should match pattern '^pissa_niter_\\d+$'",
        ),
        (LORA_CONFIG, "rank_pattern", ["q_proj"], "Input should be a valid dictionary"),
        (BITS_AND_BYTES_CONFIG, "llm_int8_threshold", "high", "Input should be a valid number"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_the_right_type(library, argument, value, why):
    assert refusal(library, argument, value) == why


def test_reading_the_arguments_imports_no_library():
    program = (
        "import sys; from eyas.recipe import library_signatures as l;"
        "print([len(c.arguments()) for c in (l.SFT_CONFIG, l.LORA_CONFIG, l.BITS_AND_BYTES_CONFIG)]);"
        "print(sorted({'torch', 'transformers', 'trl', 'peft'} & sys.modules.keys()))"
    )
    counts, imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert min(map(int, counts.strip("[]").split(","))) >= 10
    assert imported == "[]"


def test_an_unknown_class_is_a_programming_error():
    with pytest.raises(AssertionError, match="the installed peft has no LorConfig"):
        LibraryClass("peft.LorConfig").arguments()


def refusal(library: LibraryClass, argument: str, value: object) -> str | None:
    """Return why a value as a whole does not fit an argument, or None."""
    return refusals(library.arguments()[argument].type, value).get(())


def defaults_of(library: LibraryClass) -> dict[str, object]:
    """Return the defaults of the real class that are plain data."""
    parameters = parameters_of(real_class(library))
    defaults = {name: parameters[name].default for name in library.arguments()}
    return {name: default for name, default in defaults.items() if type(default) in (bool, int, float, str, type(None))}


def parameters_of(real: type) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(real.__init__).parameters)
    del parameters["self"]
    return parameters


def real_class(library: LibraryClass) -> type:
    package, _, name = library.name.partition(".")
    return getattr(import_module(package), name)
