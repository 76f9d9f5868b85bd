"""`eyas preview`: show the first batches exactly as the trainer receives them."""

from pathlib import Path
from typing import Annotated

import typer

from eyas.cli.arguments import Overrides, RecipeFile
from eyas.cli.errors import errors_as_text


def preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    batches: Annotated[int, typer.Option(min=1, help="Number of batches to show; a batch is one forward pass.")] = 1,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page to FILE instead of printing.")
    ] = None,
) -> None:
    """Show a recipe's first batches, token by token.

    Trained, masked and padding tokens are marked. Each row has its source, and truncated rows say so.
    """
    from eyas.preflight.checks import check, refuse_if_blocked
    from eyas.recipe import load_recipe

    with errors_as_text():
        loaded = load_recipe(recipe, overrides or [])
        # A preview does not need what only training uses, such as a tracker.
        refuse_if_blocked([finding for finding in check(loaded) if finding.where.startswith(("model.", "data."))])

        from eyas.data.preview.from_tensors import preview as preview_of
        from eyas.preflight.pinning import pinned
        from eyas.tasks import TASKS
        from eyas.tasks.first_batches import first_batches
        from eyas.tasks.rows import load_rows

        with pinned(loaded, typer.echo, weights=False) as names:
            loaded, task = names.recipe, TASKS[loaded.task]
            rows = load_rows(loaded)
            splits = rows.splits
            previews = [
                preview_of(batch, splits.train, rows.tokenizer, splits.labels)
                for batch in first_batches(loaded, task, rows.tokenizer, splits, batches)
            ]
        if html is None:
            from rich.console import Console

            from eyas.data.preview.terminal import print_batches

            typer.echo(f"{splits.report.text()}\n")
            print_batches(previews, Console())
        else:
            from eyas.data.preview.html import page

            _write(html, page(recipe.stem, splits.report.text(), previews))
            typer.echo(f"written: {html}")
        if len(previews) < batches:
            typer.echo(f"an epoch has only these {len(previews)} batches")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file}: cannot be written: {error.strerror}", param_hint="--html") from None
