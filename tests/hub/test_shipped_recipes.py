"""Every shipped recipe with hub names runs with the commands in its header and in the README."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from conftest import RECIPES, ROOT
from eyas.files import counted
from eyas.recipe import load_recipe
from hub.conftest import TOKEN, process_environment

pytestmark = pytest.mark.slow
ON_THE_HUB = [file.stem for file in RECIPES if not load_recipe(file).model.is_local]
README_COMMAND = re.search(
    r"^accelerate launch .*launch/train\.py recipes/\w+\.yaml$", (ROOT / "README.md").read_text(), re.M
)


IN_ONE_PROCESS = """
import json, sys
from eyas.cli.errors import quieten_libraries
from eyas.cli.main import app

quieten_libraries()
for words in json.loads(sys.argv[1]):
    app(words, standalone_mode=False)
print("all verbs have run")
"""


def own_command(name):
    """Return the command in the header of a recipe."""
    header = (ROOT / "recipes" / f"{name}.yaml").read_text()
    return re.search(r"^#\s+(accelerate launch .*)$", header, re.M)[1]


COMMANDS = {name: own_command(name) for name in ON_THE_HUB}
COMMANDS |= {f"{name}, two ranks": command.replace("single_gpu", "ddp") for name, command in COMMANDS.items()}
COMMANDS |= {"the README's": README_COMMAND[0]}


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that a user copies."""
    for name in ("recipes", "launch", "accelerate_configs", "ds_configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(words, folder, hub, **more):
    path = f"{sys.prefix}/bin:/usr/bin:/bin"
    environment = process_environment(hub, folder / "hf", PATH=path, HF_TOKEN=TOKEN, OMP_NUM_THREADS="1", **more)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_recipes_and_their_commands_are_found():
    assert len(ON_THE_HUB) == 5 and len(COMMANDS) == 11 and set(QUICK) < COMMANDS.keys()
    assert "zero3" in COMMANDS["the README's"] and "ddp" in COMMANDS["falcon7b_qlora, two ranks"]


# Of each kind of command one runs in every test run: all verbs, a classifier, two ranks, the README's.
QUICK = ("falcon7b_lora", "distilbert_lora_yelp", "falcon7b_qlora, two ranks", "the README's")


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.sweep) for case in COMMANDS]
)
def test_a_shipped_recipe_runs_by_its_command(case, checkout, hub):
    command = COMMANDS[case].split()
    name = re.search(r"recipes/(\w+)\.yaml", COMMANDS[case])[1]
    port = ["--main_process_port", "0"]  # tests that run in parallel have different ports
    short = ["training.max_steps=3"] if "yelp" in name else []  # of 5,000 rows

    done = run([*command[:2], *port, *command[2:], *short], checkout, hub)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    manifest = json.loads((checkout / "runs" / name / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    for one in manifest["hub"]:
        assert one["commit"] == hub.repository(f"{one['kind']}s", one["name"]).refs["main"]
    ranks = 2 if "two ranks" in case or "README" in case else 1
    assert f"processes       {counted(ranks, 'process')}, " in done.stdout
    assert len([path for path in hub.look_ups() if path.startswith("/api/models")]) == 1
    assert len(hub.downloads("model.safetensors")) == 1  # the second rank finds the first rank's download
    assert "HTTP Request" not in done.stdout + done.stderr
    if ranks == 1:
        verbs_say_nothing_secret(checkout, name, hub, done)


def verbs_say_nothing_secret(checkout, name, hub, trained):
    commands = [[sys.executable, "-m", "eyas", "merge", f"runs/{name}", "--report"]]
    if name == "falcon7b_lora":
        verbs = [
            ["evaluate", f"runs/{name}", "--model", "merged"], ["generate", f"runs/{name}", "--prompt", "a falcon"],
            ["check", "--online", f"recipes/{name}.yaml"], ["preview", f"recipes/{name}.yaml"],
            ["parameters", f"recipes/{name}.yaml"], ["verify", f"runs/{name}"],
        ]  # fmt: skip
        commands.append([sys.executable, "-c", IN_ONE_PROCESS, json.dumps(verbs)])
    output = trained.stdout + trained.stderr
    for command in commands:
        done = run(command, checkout, hub)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        output += done.stdout + done.stderr
    assert ("all verbs have run" in output) == (len(commands) > 1)

    assert "HTTP Request" not in output and TOKEN not in output
    holding = [file for file in checkout.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    assert holding == []
