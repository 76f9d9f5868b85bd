"""`eyas finish`: save the result of a run whose last save failed."""

import typer

from eyas.cli.arguments import Base, RunFolder
from eyas.cli.errors import errors_as_text


def finish(run: RunFolder, base: Base = None) -> None:
    """Save the result of a run whose last save failed.

    The adapter or model is written from the last checkpoint, without training. For a run that trained all its steps and
    then failed to save: the disk was full, the process was killed, or an old version refused the result. The last
    checkpoint must be complete and of the last step. If steps are missing, train them with eyas train --resume. The
    result is checked and sealed as at the end of a run, and the manifest records where it comes from.
    """
    from eyas.preflight.moved_bases import saved_template, with_base
    from eyas.recipe import load_run_recipe
    from eyas.run_directory import RunDirectory
    from eyas.verify import began_with, refuse_links

    with errors_as_text():
        directory = RunDirectory(run)
        directory.read_recipe()
        refuse_links(directory)
        recipe = load_run_recipe(directory.recipe, saved_template=saved_template(directory))

        from eyas.cli.lazy_libraries import hide_unused_libraries

        hide_unused_libraries(recipe)

        from eyas.model.base_identity import base_identity
        from eyas.model.released_step import ReleasedStep
        from eyas.preflight.pinning import pinned
        from eyas.training.finish import finish as finish_run
        from eyas.training.save import next_command

        if base is not None:
            digests = began_with(directory)["digests"]
            recipe = with_base(recipe, run, digests, base)
            base_identity(recipe.model).refuse_another(digests, str(base), run)
        with pinned(recipe, typer.echo, directory.hub_commits(), weights=False, rows=False) as names:
            folder = finish_run(directory, names.recipe)
        if folder is None:
            typer.echo(f"{run}: is finished; nothing to do")
            return
        manifest = directory.read_manifest()
        source, released = manifest["finished_from"]["checkpoint"], ReleasedStep.of_manifest(manifest)
        command = next_command(recipe, directory)
        typer.echo(f"finished: {folder}, from {source}: {released} (next: {command})")
