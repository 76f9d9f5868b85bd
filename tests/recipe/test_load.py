from pathlib import Path

import pytest

from eyas.model.adapter import METHODS
from eyas.recipe import load_recipe, load_run_recipe
from eyas.recipe.task_traits import TASK_TRAITS
from recipe_files import SMALLEST, mistakes


def one_of(names):
    """Return a list of choices in the words of pydantic."""
    *first, last = [f"'{name}'" for name in names]
    return f"{', '.join(first)} or {last}"


def test_all_mistakes_of_a_file_are_listed_in_line_order(write_recipe):
    file = write_recipe(
        "task: stf\n"
        "model:\n"
        "  dtype: float64\n"
        "adapter:\n"
        "  method: lora\n"
        "  lora_alpah: 8\n"
        "  r: 0\n"
        "  inference_mode: true\n"
        "data:\n"
        "  train: {paht: rows.jsonl, rows: many}\n"
        "  train: {path: rows.jsonl, rows: 1.5}\n"
        "training:\n"
        "  seed: 1.5\n"
        "  dataloader_num_workers: two\n"
        "  lora_dropout: 0.1\n"
        "  output_dir: elsewhere\n"
        "trainig:\n"
        "  seed: 3\n"
    )

    assert mistakes(file) == [
        f"recipe.yaml:1:1: task: input should be {one_of(TASK_TRAITS)}; found 'stf'",
        "recipe.yaml:2:1: model.name: missing; A hub id (tiiuae/falcon-7b) or a local folder.",
        "recipe.yaml:3:3: model.dtype: input should be 'float32', 'bfloat16' or 'float16'; found 'float64'",
        "recipe.yaml:6:3: adapter.lora_alpah: unknown key; did you mean 'lora_alpha'?",
        "recipe.yaml:7:3: adapter.r: input should be greater than 0; found 0",
        "recipe.yaml:8:3: adapter.inference_mode: not set in a recipe; eyas sets it from the model and the task",
        "recipe.yaml:11:3: data.train: set twice; first on line 10, remove one",
        "recipe.yaml:11:29: data.train.rows: input should be a valid integer; found 1.5",
        "recipe.yaml:13:3: training.seed: input should be a valid integer; found 1.5",
        "recipe.yaml:14:3: training.dataloader_num_workers: input should be a valid integer; found 'two'",
        "recipe.yaml:15:3: training.lora_dropout: unknown key here; it belongs in section adapter (method: lora)",
        "recipe.yaml:16:3: training.output_dir: not set in a recipe; set run_directory",
        "recipe.yaml:17:1: trainig: unknown key; did you mean 'training'?",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lora_alpha: 3", "6:1: lora_alpha: unknown key here; it belongs in section adapter (method: lora)"),
        ("dtype: float32", "6:1: dtype: unknown key here; it belongs in section model or export"),
        ("training: {holdout: 0.1}", "6:12: training.holdout: unknown key here; it belongs in section data"),
        ("training: {packng: true}", "6:12: training.packng: unknown key; did you mean 'packing'?"),
        ("training: {zzz: 1}", "6:12: training.zzz: unknown key"),
        ("speed: {packing: true}", "6:9: speed.packing: unknown key here; it belongs in section training"),
        (
            "speed: {use_dora: true}",
            "6:9: speed.use_dora: unknown key here; it belongs in section adapter (method: lora)",
        ),
        ("packing: true", "6:1: packing: unknown key here; it belongs in section training"),
        ("adapter: {method: lora, bais: all}", "6:25: adapter.bais: unknown key; did you mean 'bias'?"),
        ("export: {dtpye: float16}", "6:10: export.dtpye: unknown key; did you mean 'dtype'?"),
        ("training:", "6:1: training: should be a mapping of settings; found nothing"),
        ("evaluation: {prompts: [a, 3]}", "6:27: evaluation.prompts.1: input should be a valid string; found 3"),
        ("evaluation: {rows: true}", "6:14: evaluation.rows: input should be a valid integer; found True"),
        ("training: {learning_rate: 0}", "6:12: training.learning_rate: input should be greater than 0; found 0"),
        ("training: {weight_decay: low}", "6:12: training.weight_decay: input should be a valid number; found 'low'"),
        ("adapter: {r: 0, method: lora}", "6:11: adapter.r: input should be greater than 0; found 0"),
        ("adapter: {method: lorra}", f"6:11: adapter.method: input should be {one_of(METHODS)}; found 'lorra'"),
        ("adapter: {r: 4}", "6:1: adapter.method: missing; The PEFT method."),
        ("training: {push_to_hub: true}", "6:12: training.push_to_hub: not set in a recipe; eyas does not upload"),
        ("training: {eval_steps: 5}",
         "6:12: training.eval_steps: there are no held-out rows; add data.evaluation or data.holdout"),
        ("export: &here {}", "6:9: anchor &here: a recipe holds plain values; remove it"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_place_its_path_and_the_remedy(line, message, write_recipe):
    assert mistakes(write_recipe(SMALLEST + line + "\n")) == [f"recipe.yaml:{message}"]


@pytest.mark.parametrize("value", ["3", "[k_proj, 3]"])
def test_a_wrong_value_of_a_union_is_one_mistake_under_its_own_path(value, write_recipe):
    (message,) = mistakes(write_recipe(SMALLEST + f"adapter: {{method: lora, target_modules: {value}}}\n"))

    assert "list[str]" not in message


def test_an_argument_of_another_task_s_trainer_is_unknown(write_recipe):
    text = SMALLEST + "training: {packing: true}\n"
    classification = text.replace("sft", "sequence_classification")

    (message,) = mistakes(write_recipe(classification))

    assert message.startswith("recipe.yaml:6:12: training.packing: unknown key")


def test_an_argument_of_the_library_class_keeps_its_name(write_recipe):
    recipe = load_recipe(write_recipe(SMALLEST + "training: {adam_beta1: 0.8}\n"))

    assert recipe.training.library_arguments == {"adam_beta1": 0.8}


@pytest.mark.parametrize("text", ["", "- task: sft\n", "sft\n", "# nothing yet\n"])
def test_a_recipe_that_is_not_a_mapping_is_refused(text, write_recipe):
    assert mistakes(write_recipe(text)) == ["recipe.yaml:1:1: a recipe is a mapping of sections: task, model, data …"]


def test_a_truncated_recipe_is_refused_where_it_ends(write_recipe):
    assert mistakes(write_recipe(SMALLEST + "training: {seed: 1,"))[-1].startswith("recipe.yaml:7:1: not YAML: ")


def test_a_binary_file_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"task: \xff\xfe")

    (message,) = mistakes(file)

    assert message.startswith(f"{file}: cannot be read as UTF-8 text: ")
    assert mistakes(tmp_path) == [f"{tmp_path}: is not a file; name a recipe"]


def test_a_missing_file_suggests_a_similar_name_in_its_folder(write_recipe):
    write_recipe(SMALLEST)

    assert mistakes(Path("recpie.yaml")) == ["recpie.yaml: no such recipe; did you mean 'recipe.yaml'?"]
    assert mistakes(Path("nowhere/falcon.yaml")) == ["nowhere/falcon.yaml: no such recipe"]


def test_a_learning_rate_is_a_finite_number(write_recipe):
    (message,) = mistakes(write_recipe(SMALLEST), "training.learning_rate=1e999")

    assert "training.learning_rate" in message


def test_the_run_directory_is_named_after_the_recipe(write_recipe):
    file = write_recipe(SMALLEST)

    assert load_recipe(file).run_folder == "runs/recipe"
    assert load_recipe(file, ["run_directory=elsewhere/x"]).run_folder == "elsewhere/x"


@pytest.mark.parametrize("value", ["null", "true"])
def test_a_retired_setting_is_refused_in_a_recipe_and_ignored_in_an_earlier_run(value, write_recipe):
    file = write_recipe(SMALLEST + f"speed: {{compiled_layers: {value}, fused_lora: false}}\n")

    (line,) = mistakes(file)

    assert line.startswith("recipe.yaml:6:9: speed.compiled_layers: no longer a setting; delete this line")
    assert load_run_recipe(file).speed.fused_lora is False
