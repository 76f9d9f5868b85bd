"""CI, pre-commit and the Makefile run the same checks."""

import re
import subprocess

import yaml

from conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_workflow_runs_ci_run_and_python_312():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]

    assert commands == [".ci/run", "make test-py312"]


def test_pre_commit_runs_every_command_of_make_check():
    recipe = re.search(r"^check:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)[1]
    commands = [line.strip().removesuffix(" .") for line in recipe.replace("$(BIN)", ".venv/bin").splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]

    assert len(commands) >= 4
    assert [hook["entry"] for hook in hooks] == commands


def test_another_python_than_312_is_refused_with_what_to_do():
    done = subprocess.run(["make", "test-py312", "PYTHON312=false"], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode != 0
    assert "false is not Python 3.12; install it, or name one: make test-py312 PYTHON312=" in done.stderr


def test_bug_reports_and_pull_requests_request_the_recipe_the_manifest_and_the_last_lines():
    for name in ("ISSUE_TEMPLATE/bug.md", "pull_request_template.md"):
        text = (ROOT / ".github" / name).read_text()
        assert "recipe" in text and "manifest.json" in text and "lines" in text, name


def test_every_make_target_is_phony_and_explained_by_make_help():
    targets = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert len(targets) >= 8
    assert targets == phony
    assert set(re.findall(r"^make ([\w-]+) ", shown, re.MULTILINE)) == targets - {"help"}
