import time

import pytest

from eyas.recipe import load_recipe
from recipe_files import SMALLEST, mistakes

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


@pytest.mark.parametrize("service", CANARIES)
@pytest.mark.parametrize("dress", ["{}", "https://user:{}@host/model", "key={}"])
def test_an_access_token_is_refused_and_never_printed(service, dress, write_recipe):
    value = dress.format(CANARIES[service])
    file = write_recipe(SMALLEST + f"lora_alpha: 3\nevaluation: {{prompts: ['{value}']}}\n")

    lines = mistakes(file)

    assert lines == [f"recipe.yaml:7:24: evaluation.prompts.0: {REFUSED}"]
    assert "Qx7" not in "".join(lines)


@pytest.mark.parametrize("service", CANARIES)
def test_an_access_token_in_an_override_is_refused_and_never_printed(service, write_recipe):
    file, token = write_recipe(SMALLEST), CANARIES[service]

    assert mistakes(file, f"model.name={token}") == [f"override …: model.name: {REFUSED}"]
    for malformed in (token, f"model.name=[{token}", f"model..name={token}", f"training.zzz={token}"):
        assert token not in "".join(mistakes(file, malformed))


@pytest.mark.parametrize("line", ["{}: 3", "{}: 1\n{}: 2", "export: *{}", "export: &{} x", "export: !{} x"])
def test_an_access_token_outside_a_value_is_never_printed(line, write_recipe):
    token = CANARIES["hugging face"]

    assert token not in "".join(mistakes(write_recipe(SMALLEST + line.replace("{}", token) + "\n")))


def test_an_access_token_as_a_revision_is_refused(write_recipe):
    file = write_recipe(SMALLEST.replace("falcon", f"falcon\n  revision: {CANARIES['hugging face']}"))

    assert mistakes(file) == [f"recipe.yaml:4:3: model.revision: {REFUSED}"]


def test_a_commit_hash_is_accepted_as_a_revision(write_recipe):
    commit = CANARIES["wandb of old"]
    file = write_recipe(SMALLEST.replace("falcon", f"falcon\n  revision: {commit}"))

    assert load_recipe(file).model.revision == commit


@pytest.mark.parametrize("harmless", ["hf_short", "sk-learn", "a" * 41, "0123456789abcdef" * 4, "AKIA", "eyJ.eyJ.x"])
def test_a_word_that_resembles_a_token_is_accepted(harmless, write_recipe):
    assert load_recipe(write_recipe(SMALLEST + f"tracking: {{project: {harmless}}}\n")).tracking.project == harmless


def test_the_search_for_tokens_in_a_long_word_takes_a_tenth_of_a_second(write_recipe):
    file = write_recipe(SMALLEST + f"evaluation: {{prompts: [{'eyJ' * 8_000}]}}\n")

    start = time.perf_counter()
    load_recipe(file)

    assert time.perf_counter() - start <= 0.1
