"""Train one recipe. `accelerate launch` starts this script on every rank.

accelerate launch [--config_file accelerate_configs/ddp.yaml] launch/train.py RECIPE [section.key=value …] [--resume]
"""

import os
import sys

# accelerate 1.15 puts the working folder on the import path of DeepSpeed's ranks. It may hold a run of somebody else.
while os.getcwd() in sys.path:
    sys.path.remove(os.getcwd())

# ruff: noqa: E402

import argparse
from pathlib import Path

from eyas.cli.start import start_process


def main() -> None:
    start_process()

    from eyas.cli.errors import errors_as_text  # after the start: a signal in these imports has its exit code already
    from eyas.launchers.shipped import recipe_file
    from eyas.recipe import at_their_places

    arguments = parse_arguments()
    with errors_as_text():
        file = recipe_file(arguments.recipe)
        with at_their_places(file, arguments.overrides):
            train_recipe(file, arguments)


def train_recipe(file: Path, arguments: argparse.Namespace) -> None:
    from eyas.cli.lazy_libraries import hide_unused_libraries
    from eyas.distributed.handshake import refuse_together
    from eyas.distributed.topology import restarts
    from eyas.recipe import load_recipe
    from eyas.run_directory import RunDirectory

    recipe = refuse_together("start", lambda: load_recipe(file, arguments.overrides))
    run = RunDirectory(Path(recipe.run_folder))
    hide_unused_libraries(recipe)

    from eyas.training.resume.changes import resumes_after_restart
    from eyas.training.run import train

    with_changes = arguments.resume_with_changes
    resume = resumes_after_restart(run) if restarts() else arguments.resume or with_changes
    train(recipe, run, resume, with_changes)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a YAML file, such as recipes/falcon7b_qlora.yaml")
    parser.add_argument("overrides", nargs="*", help="settings to change, such as training.max_steps=10")
    parser.add_argument("--resume", action="store_true", help="continue from the run's newest valid checkpoint")
    parser.add_argument(
        "--resume-with-changes",
        action="store_true",
        help="continue although the recipe, the data or the ranks have changed; the manifest records the changes",
    )
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
