"""Names of other tools and of earlier versions get the setting to use, and no similar spelling."""

import pytest

from eyas.errors import RecipeError
from eyas.recipe import load_recipe
from eyas.recipe.other_names import OTHER_NAMES, OTHER_TASKS
from eyas.recipe.section import LibrarySection
from eyas.recipe.section_types import section_types
from eyas.recipe.task_traits import TASK_TRAITS

AT_THE_TOP = {
    "lr": "unknown key; set training.learning_rate",
    "cutoff_len": "unknown key; set training.max_length",
    "lora_rank": "unknown key; set adapter.r",
    "num_epochs": "unknown key; set training.num_train_epochs",
    "val_set_size": "unknown key; set data.holdout, a share of the training rows",
    "sample_packing": "unknown key; set training.packing",
    "micro_batch_size": "unknown key; set training.per_device_train_batch_size",
    "gradient_accumulation_steps": "not set in a recipe; in section training: set global_batch_size; eyas computes "
    "the accumulation",
    "output_dir": "not set in a recipe; in section training: set run_directory",
    "deepspeed": "not set in a recipe; in section training: set it in the accelerate config (accelerate launch "
    "--config_file …)",
    "lora_alpha": "unknown key here; it belongs in section adapter (method: lora)",
    "load_in_4bit": "unknown key here; it belongs in section quantization",
    "plugins": "unknown key",
    "wandb_entity": "unknown key",
    "strict": "unknown key",
}
IN_TRAINING = {
    "evaluation_strategy": "unknown key; set training.eval_steps, a whole number of optimizer steps",
    "group_by_length": "unknown key; set training.train_sampling_strategy: group_by_length",
    "warmup_ratio": "unknown key; set training.warmup_steps: 0.03 instead; below 1 it is a share of the run's steps",
    "no_cuda": "unknown key; set it in the accelerate config (accelerate launch --config_file …)",
    "save_safetensors": "unknown key; remove it; the library no longer has it",
    "max_seq_length": "not set in a recipe; set max_length",
    "early_stopping_patience": "unknown key; is not available; set training.eval_steps and load_best_model_at_end: "
    "true to keep the best step, or divergence_patience to stop a diverging run",
    "num_train_epoch": "unknown key; did you mean 'num_train_epochs'?",
    "optm": "unknown key; did you mean 'optim'?",
}
TASKS_OF_OTHERS = {
    "dpo": "preference tuning is not available yet",
    "DPO": "preference tuning is not available yet",
    "grpo": "reinforcement learning is not available yet",
    "pretrain": "use sft with data.format: text",
    "text_classification": "use sequence_classification",
    "ner": "use token_classification",
}
FOREIGN = (
    "base_model: a/b\nsequence_len: 2048\nmicro_batch_size: 2\nnum_epochs: 1\nlr: 1e-4\nlora_r: 8\nval_set_size: 0\n"
)


def refusal_of(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as refusal:
        load_recipe(file)
    return [line.removeprefix(f"{file}:") for line in str(refusal.value).splitlines()]


@pytest.mark.parametrize(("name", "advice"), AT_THE_TOP.items())
def test_a_name_at_the_top_of_a_file_gets_the_setting_to_use(name, advice, tmp_path):
    text = f"task: sft\nmodel: {{name: a/b}}\ndata: {{train: {{path: a/b}}}}\n{name}: 1\n"

    assert refusal_of(tmp_path, text) == [f"4:1: {name}: {advice}"]


@pytest.mark.parametrize(("name", "advice"), IN_TRAINING.items())
def test_a_name_in_the_training_section_gets_the_setting_to_use(name, advice, tmp_path):
    text = f"task: sft\nmodel: {{name: a/b}}\ndata: {{train: {{path: a/b}}}}\ntraining:\n  {name}: 1\n"

    assert refusal_of(tmp_path, text) == [f"5:3: training.{name}: {advice}"]


@pytest.mark.parametrize(("task", "advice"), TASKS_OF_OTHERS.items())
def test_a_task_of_another_tool_gets_the_one_to_use_or_the_fact_that_there_is_none(task, advice, tmp_path):
    (line,) = refusal_of(tmp_path, f"task: {task}\nmodel: {{name: a/b}}\ndata: {{train: {{path: a/b}}}}\n")

    assert line.endswith(f"; found '{task}'; {advice}")


def test_a_file_of_another_tool_is_recognized_in_its_first_line(tmp_path):
    lines = refusal_of(tmp_path, FOREIGN)

    assert any(line.startswith("1:1: is this a file of another tool? A recipe has task, model,") for line in lines)
    assert sum("unknown key; set " in line for line in lines) == 7
    assert not any("did you mean" in line for line in lines)


def test_no_name_of_another_tool_is_a_setting_and_each_advice_names_one_that_exists():
    sections = section_types()
    settings = {name: set() for name in sections}
    for name, kinds in sections.items():
        for kind in kinds:
            settings[name] |= kind.model_fields.keys()
            if issubclass(kind, LibrarySection):
                settings[name] |= {key for task in TASK_TRAITS for key in kind.accepted_arguments(task)}
    named = [
        word.rstrip(",:;") for advice in OTHER_NAMES.values() for word in advice.split() if "." in word.rstrip(".,")
    ]
    named = [word.partition(".") for word in named if word.partition(".")[0] in sections]

    assert len(OTHER_NAMES) >= 100 and len(OTHER_TASKS) >= 20 and len(named) >= 50
    assert OTHER_NAMES.keys() & set().union(*settings.values(), sections) == set()
    assert [(section, key) for section, _, key in named if key not in settings[section]] == []
