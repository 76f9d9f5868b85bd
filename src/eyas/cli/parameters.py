"""`eyas parameters`: list the layers that a recipe's adapter trains, and count their parameters."""

import typer

from eyas.cli.arguments import Overrides, RecipeFile
from eyas.cli.errors import errors_as_text


def parameters(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Count a recipe's trainable parameters, without weights.

    The model is built from its config alone. Each kind of module that trains is listed.
    """
    from eyas.recipe import load_recipe

    with errors_as_text():
        loaded = load_recipe(recipe, overrides or [])

        from eyas.model.adapter import resolve
        from eyas.model.load import empty_model, load_config
        from eyas.preflight.pinning import pinned
        from eyas.tasks import TASKS

        task = TASKS[loaded.task]
        with pinned(loaded, typer.echo, weights=False, rows=False) as names:
            model = names.recipe.model
            empty = empty_model(load_config(model, loaded.data.labels), task.auto_model, model.trust_remote_code)
        if loaded.adapter is None:
            total = sum(parameter.numel() for parameter in empty.parameters())
            typer.echo(f"full fine-tuning: all of {total:,} parameters train")
        else:
            typer.echo(resolve(loaded.adapter, task.peft_task_type, empty).table())
