"""`eyas finish`: the result of a run that has made all its steps and could not save it."""

import typer

from eyas.cli.arguments import RunFolder
from eyas.cli.errors import mistakes_as_text


def finish(run: RunFolder) -> None:
    """Write a run's adapter (or model) from its last checkpoint; no step is trained again.

    For a run that made all its steps and whose save then failed: the disk was full, the process was killed, or an
    earlier version refused it. The checkpoint must be whole and of the last step; where steps are missing, train them
    with eyas train --resume. What is written is checked and sealed as at the end of a run, and the manifest says so.
    """
    from eyas.recipe import load_run_recipe
    from eyas.run_directory import RunDirectory

    with mistakes_as_text():
        directory = RunDirectory(run)
        directory.read_recipe()
        recipe = load_run_recipe(directory.recipe)

        from eyas.cli.lazy_libraries import hide_what_is_not_used

        hide_what_is_not_used(recipe)

        from eyas.preflight.pinning import pinned
        from eyas.training.finish import finish as finish_run

        with pinned(recipe, typer.echo, directory.hub_commits(), weights=False, rows=False) as names:
            folder = finish_run(directory, names.recipe)
        if folder is None:
            typer.echo(f"{run}: is finished; nothing to do")
            return
        steps = directory.read_manifest()["steps"]
        source = directory.read_manifest()["finished_from"]["checkpoint"]
        typer.echo(f"finished: {folder}, as trained in {steps} steps, from {source} (next: eyas merge {run})")
