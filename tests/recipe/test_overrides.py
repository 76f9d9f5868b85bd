from eyas.recipe import load_recipe
from recipe_files import SMALLEST, mistakes


def test_an_override_replaces_the_value_in_the_file(write_recipe):
    file = write_recipe(SMALLEST + "training: {seed: 1, learning_rate: 1.0}\nadapter: {method: lora}\n")

    recipe = load_recipe(
        file, ["training.learning_rate=2e-4", "model.name=a=b", "adapter=~", "evaluation.prompts=[no]"]
    )

    assert recipe.training.learning_rate == 2e-4
    assert recipe.training.seed == 1
    assert recipe.model.name == "a=b"
    assert recipe.adapter is None
    assert recipe.evaluation.prompts == ["no"]


def test_the_last_of_two_overrides_of_a_setting_wins(write_recipe):
    assert load_recipe(write_recipe(SMALLEST), ["training.seed=1", "training.seed=2"]).training.seed == 2


def test_an_override_fixes_a_mistake_of_the_file(write_recipe):
    file = write_recipe(SMALLEST + "training: {seed: x}\n")

    assert load_recipe(file, ["training.seed=5"]).training.seed == 5


def test_a_mistake_in_an_override_names_the_override(write_recipe):
    file = write_recipe(SMALLEST)
    expected = {
        "training.max_stesp=5": "training.max_stesp: unknown key; did you mean 'max_steps'?",
        "training.max_steps=-9": "training.max_steps: input should be greater than or equal to -1; found -9",
        "training.lora_alpha=3": "training.lora_alpha: unknown key here; it belongs in section adapter (method: lora)",
        "data.packing=true": "data.packing: unknown key here; it belongs in section training",
        "data.train.packing=true": "data.train.packing: unknown key here; it belongs in section training",
        "training.output_dir=x": "training.output_dir: not set in a recipe; set run_directory",
        "training.adam_beta1=x": "training.adam_beta1: input should be a valid number; found 'x'",
        "data.train.path=7": "data.train.path: input should be a valid string; found 7",
        "optim=x": "optim: unknown key here; it belongs in section training",
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

    for override, message in expected.items():
        assert mistakes(file, override) == [f"override {override}: {message}"]


def test_an_override_below_a_plain_value_names_the_override(write_recipe):
    (message,) = mistakes(write_recipe(SMALLEST), "model.name.revision=main")

    assert message.startswith("override model.name.revision=main: ")


def test_mistakes_of_the_file_and_of_overrides_are_listed_together(write_recipe):
    file = write_recipe(SMALLEST + "training: {sede: 1}\n")

    lines = mistakes(file, "training.max_steps=-9", "seed")

    assert sorted(lines) == [
        "override seed: write section.key=value, such as training.max_steps=10",
        "override training.max_steps=-9: training.max_steps: input should be greater than or equal to -1; found -9",
        "recipe.yaml:6:12: training.sede: unknown key; did you mean 'seed'?",
    ]
