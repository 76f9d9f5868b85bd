import time
from pathlib import Path

import pytest
import yaml

from eyas.errors import RecipeError
from eyas.recipe import load_recipe, load_run_recipe

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.yaml"))
SMALLEST = "task: sft\nmodel:\n  name: falcon\ndata:\n  train: {path: rows.jsonl}\n"  # five lines
CANARIES = {
    "hugging face": "hf_" + "Qx7" * 11,
    "openai": "sk-proj-" + "Qx7_" * 10,
    "anthropic": "sk-ant-api03-" + "Qx7-" * 10,
    "github classic": "ghp_" + "Qx7" * 12,
    "github server": "ghs_" + "Qx7" * 12,
    "github fine-grained": "github_pat_" + "Qx7_" * 12,
    "gitlab": "glpat-" + "Qx7-" * 5,
    "aws": "AKIA" + "QX7Z" * 4,
    "slack": "xoxb-" + "1234567890-" * 3 + "Qx7",
    "google": "AIza" + "Qx7-_" * 7,
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----Qx7Qx7",
    "wandb": "wandb_v1_" + "Qx7" * 10,
    "wandb of old": "0a1b2c3d4e" * 4,
    "json web token": "eyJ" + "Qx7" * 6 + ".eyJ" + "Qx7" * 6 + ".Qx7",
}
REFUSED = "looks like an access token; log in with the service's own command and remove it from the recipe"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a recipe of this text where errors name it `recipe.yaml`."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return Path("recipe.yaml")

    return write


def mistakes(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as refused:
        load_recipe(file, overrides)
    return str(refused.value).splitlines()


def test_every_mistake_of_a_file_is_told_at_once_by_line(written):
    file = written(
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
        "recipe.yaml:1:1: task: input should be 'sft' or 'sequence_classification'; found 'stf'",
        "recipe.yaml:2:1: model.name: missing; A hub id (tiiuae/falcon-7b) or a local folder.",
        "recipe.yaml:3:3: model.dtype: input should be 'float32', 'bfloat16' or 'float16'; found 'float64'",
        "recipe.yaml:6:3: adapter.lora_alpah: unknown key; did you mean 'lora_alpha'?",
        "recipe.yaml:7:3: adapter.r: input should be greater than 0; found 0",
        "recipe.yaml:8:3: adapter.inference_mode: not set in a recipe; eyas sets it from the model and the task",
        "recipe.yaml:11:3: data.train: set twice; first on line 10, remove one",
        "recipe.yaml:11:29: data.train.rows: input should be a valid integer; found 1.5",
        "recipe.yaml:13:3: training.seed: input should be a valid integer; found 1.5",
        "recipe.yaml:14:3: training.dataloader_num_workers: input should be a valid integer; found 'two'",
        "recipe.yaml:15:3: training.lora_dropout: unknown key here; it belongs in section adapter",
        "recipe.yaml:16:3: training.output_dir: not set in a recipe; set run_directory",
        "recipe.yaml:17:1: trainig: unknown key; did you mean 'training'?",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("lora_alpha: 3", "6:1: lora_alpha: unknown key here; it belongs in section adapter"),
        ("dtype: float32", "6:1: dtype: unknown key here; it belongs in section model or export"),
        ("training: {holdout: 0.1}", "6:12: training.holdout: unknown key here; it belongs in section data"),
        ("training: {packng: true}", "6:12: training.packng: unknown key; did you mean 'packing'?"),
        ("training: {zzz: 1}", "6:12: training.zzz: unknown key"),
        ("adapter: {method: lora, bais: all}", "6:25: adapter.bais: unknown key; did you mean 'bias'?"),
        ("export: {dtpye: float16}", "6:10: export.dtpye: unknown key; did you mean 'dtype'?"),
        ("training:", "6:1: training: input should be a valid dictionary or instance of Training; found nothing"),
        ("evaluation: {prompts: [a, 3]}", "6:27: evaluation.prompts.1: input should be a valid string; found 3"),
        ("evaluation: {rows: true}", "6:14: evaluation.rows: input should be a valid integer; found True"),
        ("training: {learning_rate: 0}", "6:12: training.learning_rate: input should be greater than 0; found 0"),
        ("training: {weight_decay: low}", "6:12: training.weight_decay: input should be a valid number; found 'low'"),
        ("adapter: {r: 0, method: lora}", "6:11: adapter.r: input should be greater than 0; found 0"),
        ("adapter: {method: ia3}", "6:11: adapter.method: input should be 'lora'; found 'ia3'"),
        ("adapter: {r: 4}", "6:1: adapter.method: missing; The PEFT method."),
        ("training: {push_to_hub: true}", "6:12: training.push_to_hub: not set in a recipe; eyas uploads nothing"),
        ("training: {eval_steps: 5}",
         "6:12: training.eval_steps: there are no held-out rows; add data.evaluation or data.holdout"),
        ("export: &here {}", "6:9: anchor &here: a recipe holds plain values; remove it"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_its_path_and_what_to_do(line, told, written):
    assert mistakes(written(SMALLEST + line + "\n")) == [f"recipe.yaml:{told}"]


@pytest.mark.parametrize("value", ["3", "[k_proj, 3]"])
def test_a_value_that_may_be_a_list_or_a_word_is_one_mistake_under_its_own_path(value, written):
    (told,) = mistakes(written(SMALLEST + f"adapter: {{method: lora, target_modules: {value}}}\n"))

    assert "list[str]" not in told


def test_an_argument_of_the_other_task_s_trainer_is_unknown(written):
    text = SMALLEST + "training: {packing: true}\n"
    classification = text.replace("sft", "sequence_classification")

    (told,) = mistakes(written(classification))

    assert told.startswith("recipe.yaml:6:12: training.packing: unknown key")


def test_an_argument_of_the_library_class_is_kept_under_its_own_name(written):
    recipe = load_recipe(written(SMALLEST + "training: {adam_beta1: 0.8}\n"))

    assert recipe.training.library_arguments == {"adam_beta1": 0.8}


@pytest.mark.parametrize("text", ["", "- task: sft\n", "sft\n", "# nothing yet\n"])
def test_a_recipe_that_is_no_mapping_is_refused(text, written):
    assert mistakes(written(text)) == ["recipe.yaml:1:1: a recipe is a mapping of sections: task, model, data …"]


def test_a_cut_recipe_is_refused_where_it_ends(written):
    assert mistakes(written(SMALLEST + "training: {seed: 1,"))[-1].startswith("recipe.yaml:7:1: not YAML: ")


def test_a_file_of_bytes_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"task: \xff\xfe")

    (told,) = mistakes(file)

    assert told.startswith(f"{file}: cannot be read as UTF-8 text: ")
    assert mistakes(tmp_path)[0].startswith(f"{tmp_path}: cannot be read as UTF-8 text: ")


def test_a_missing_file_suggests_the_one_beside_it(written):
    written(SMALLEST)

    assert mistakes(Path("recpie.yaml")) == ["recpie.yaml: no such recipe; did you mean 'recipe.yaml'?"]
    assert mistakes(Path("nowhere/falcon.yaml")) == ["nowhere/falcon.yaml: no such recipe"]


def test_an_override_takes_the_place_of_what_the_file_says(written):
    file = written(SMALLEST + "training: {seed: 1, learning_rate: 1.0}\nadapter: {method: lora}\n")

    recipe = load_recipe(
        file, ["training.learning_rate=2e-4", "model.name=a=b", "adapter=~", "evaluation.prompts=[no]"]
    )

    assert recipe.training.learning_rate == 2e-4
    assert recipe.training.seed == 1
    assert recipe.model.name == "a=b"
    assert recipe.adapter is None
    assert recipe.evaluation.prompts == ["no"]


def test_of_two_overrides_of_one_setting_the_last_stands(written):
    assert load_recipe(written(SMALLEST), ["training.seed=1", "training.seed=2"]).training.seed == 2


def test_an_override_mends_a_mistake_of_the_file(written):
    file = written(SMALLEST + "training: {seed: x}\n")

    assert load_recipe(file, ["training.seed=5"]).training.seed == 5


def test_an_override_follows_the_rules_of_the_file_and_is_named_as_itself(written):
    file = written(SMALLEST)
    expected = {
        "training.max_stesp=5": "training.max_stesp: unknown key; did you mean 'max_steps'?",
        "training.max_steps=-9": "training.max_steps: input should be greater than or equal to -1; found -9",
        "training.lora_alpha=3": "training.lora_alpha: unknown key here; it belongs in section adapter",
        "training.output_dir=x": "training.output_dir: not set in a recipe; set run_directory",
        "training.adam_beta1=x": "training.adam_beta1: input should be a valid number; found 'x'",
        "data.train.path=7": "data.train.path: input should be a valid string; found 7",
        "optim=x": "optim: unknown key",
        "training={sed: 3}": "training.sed: unknown key; did you mean 'seed'?",
        "training.eval_steps=5": "training.eval_steps: there are no held-out rows; add data.evaluation or data.holdout",
        "max_steps": "write section.key=value, such as training.max_steps=10",
        "=3": "write section.key=value, such as training.max_steps=10",
        "training..seed=3": "write section.key=value, such as training.max_steps=10",
        "training.seed=[1,": "not YAML: did not find expected node content",
        "training={seed: 3, seed: 4}": "seed: set twice; first on line 1, remove one",
        "model.name=!!python/name:os.system x": (
            "tag tag:yaml.org,2002:python/name:os.system: a recipe holds plain values; remove it"
        ),
    }  # fmt: skip

    for override, told in expected.items():
        assert mistakes(file, override) == [f"override {override}: {told}"]


def test_an_override_below_a_word_of_the_file_is_named_as_itself(written):
    (told,) = mistakes(written(SMALLEST), "model.name.revision=main")

    assert told.startswith("override model.name.revision=main: ")


def test_a_learning_rate_is_a_finite_number(written):
    (told,) = mistakes(written(SMALLEST), "training.learning_rate=1e999")

    assert "training.learning_rate" in told


def test_mistakes_of_the_file_and_of_overrides_come_together(written):
    file = written(SMALLEST + "training: {sede: 1}\n")

    told = mistakes(file, "training.max_steps=-9", "seed")

    assert sorted(told) == [
        "override seed: write section.key=value, such as training.max_steps=10",
        "override training.max_steps=-9: training.max_steps: input should be greater than or equal to -1; found -9",
        "recipe.yaml:6:12: training.sede: unknown key; did you mean 'seed'?",
    ]


@pytest.mark.parametrize("service", CANARIES)
@pytest.mark.parametrize("dress", ["{}", "https://user:{}@host/model", "key={}"])
def test_an_access_token_is_refused_and_never_printed(service, dress, written):
    value = dress.format(CANARIES[service])
    file = written(SMALLEST + f"lora_alpha: 3\nevaluation: {{prompts: ['{value}']}}\n")

    told = mistakes(file)

    assert told == [f"recipe.yaml:7:24: evaluation.prompts.0: {REFUSED}"]
    assert "Qx7" not in "".join(told)


@pytest.mark.parametrize("service", CANARIES)
def test_an_access_token_in_an_override_is_refused_and_never_printed(service, written):
    file, token = written(SMALLEST), CANARIES[service]

    assert mistakes(file, f"model.name={token}") == [f"override …: model.name: {REFUSED}"]
    for malformed in (token, f"model.name=[{token}", f"model..name={token}", f"training.zzz={token}"):
        assert token not in "".join(mistakes(file, malformed))


@pytest.mark.parametrize("line", ["{}: 3", "{}: 1\n{}: 2", "export: *{}", "export: &{} x", "export: !{} x"])
def test_an_access_token_that_is_no_value_is_never_printed_either(line, written):
    token = CANARIES["hugging face"]

    assert token not in "".join(mistakes(written(SMALLEST + line.replace("{}", token) + "\n")))


def test_an_access_token_as_a_revision_is_refused(written):
    file = written(SMALLEST.replace("falcon", f"falcon\n  revision: {CANARIES['hugging face']}"))

    assert mistakes(file) == [f"recipe.yaml:4:3: model.revision: {REFUSED}"]


def test_a_commit_is_no_secret_where_a_revision_is_meant(written):
    commit = CANARIES["wandb of old"]
    file = written(SMALLEST.replace("falcon", f"falcon\n  revision: {commit}"))

    assert load_recipe(file).model.revision == commit


@pytest.mark.parametrize("harmless", ["hf_short", "sk-learn", "a" * 41, "0123456789abcdef" * 4, "AKIA", "eyJ.eyJ.x"])
def test_what_only_resembles_a_token_is_taken(harmless, written):
    assert load_recipe(written(SMALLEST + f"tracking: {{project: {harmless}}}\n")).tracking.project == harmless


def test_a_long_word_is_searched_for_tokens_in_a_tenth_of_a_second(written):
    file = written(SMALLEST + f"evaluation: {{prompts: [{'eyJ' * 8_000}]}}\n")

    start = time.perf_counter()
    load_recipe(file)

    assert time.perf_counter() - start <= 0.1


def test_a_run_is_named_for_its_recipe(written):
    file = written(SMALLEST)

    assert load_recipe(file).run_folder == "runs/recipe"
    assert load_recipe(file, ["run_directory=elsewhere/x"]).run_folder == "elsewhere/x"


def test_there_are_shipped_recipes():
    assert len(RECIPES) >= 7


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_resolves_to_a_file_that_loads_to_the_same_recipe(file, written):
    recipe = load_recipe(file)

    again = load_recipe(written(recipe.to_yaml()))

    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert recipe.run_directory == f"runs/{file.stem}"


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_resolved_recipe_writes_every_default_out(file):
    recipe = load_recipe(file)

    resolved = yaml.safe_load(recipe.to_yaml())

    assert resolved["training"].keys() >= type(recipe.training).model_fields.keys()
    assert resolved["training"]["seed"] == 42
    assert resolved["tracking"] == {"report_to": "none", "project": "eyas", "mode": "online"}


@pytest.mark.parametrize("word", ["no", "~", "12:30", "16", "true", "", "é", "a: b", "# a", "*a", "two\nlines"])
def test_a_word_is_still_that_word_after_a_recipe_is_written_out(word, written):
    assert_comes_back(word, written)


@pytest.mark.parametrize("word", ["2e-4", "1e5", "08"])
def test_a_word_that_only_yaml_1_2_calls_a_number_is_still_that_word(word, written):
    assert_comes_back(word, written)


def assert_comes_back(word: str, written) -> None:
    recipe = load_recipe(written(SMALLEST + "evaluation: {prompts: ['x']}\n"))
    evaluation = recipe.evaluation.model_copy(update={"prompts": [word]})
    recipe = recipe.model_copy(update={"evaluation": evaluation})

    assert load_recipe(written(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("value", ["null", "true"])
def test_a_retired_setting_is_refused_in_a_recipe_and_ignored_in_an_earlier_run(value, written):
    file = written(SMALLEST + f"speed: {{compiled_layers: {value}, fused_lora: false}}\n")

    (refused,) = mistakes(file)

    assert refused.startswith("recipe.yaml:6:9: speed.compiled_layers: no longer a setting; delete this line")
    assert load_run_recipe(file).speed.fused_lora is False
