"""Train one recipe: what `accelerate launch` starts on every rank.

accelerate launch [--config_file accelerate_configs/ddp.yaml] launch/train.py RECIPE [section.key=value …] [--resume]
"""

import argparse
from pathlib import Path

from eyas.allocator import restart_with_allocator
from eyas.cli.errors import mistakes_as_text
from eyas.cli.lazy_libraries import only_what_is_used, this_process_has_one_verb
from eyas.distributed.topology import restarts
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a YAML file, such as recipes/falcon7b_qlora.yaml")
    parser.add_argument("overrides", nargs="*", help="settings that differ, such as training.max_steps=10")
    parser.add_argument("--resume", action="store_true", help="go on from the run's newest valid checkpoint")
    parser.add_argument(
        "--resume-with-changes", action="store_true", help="… though the recipe, data or ranks differ; keeps a record"
    )
    given = parser.parse_intermixed_args()
    with mistakes_as_text():
        recipe = load_recipe(given.recipe, given.overrides)
        run = RunDirectory(Path(recipe.run_folder))
        from eyas.training.resume.changes import resumes_after_restart
        from eyas.training.run import train

        resume = resumes_after_restart(run) if restarts() else given.resume or given.resume_with_changes
        with only_what_is_used(recipe):
            train(recipe, run, resume, given.resume_with_changes)


if __name__ == "__main__":
    restart_with_allocator()
    this_process_has_one_verb()
    main()
