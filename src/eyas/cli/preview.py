"""`eyas preview`: what the trainer will get, before it gets it."""

from pathlib import Path
from typing import Annotated

import typer

from eyas.cli.arguments import Overrides, RecipeFile
from eyas.cli.errors import mistakes_as_text


def preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    batches: Annotated[int, typer.Option(min=1, help="How many batches of one forward pass, from the first.")] = 1,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page instead.")] = None,
) -> None:
    """Show a recipe's first batches: trained, masked and padding tokens, where rows came from, what was cut."""
    from eyas.preflight.checks import check, refuse_if_blocked
    from eyas.recipe import load_recipe

    with mistakes_as_text():
        loaded = load_recipe(recipe, overrides or [])
        # What only training needs, such as a tracker, need not be here.
        refuse_if_blocked([finding for finding in check(loaded) if finding.where.startswith(("model.", "data."))])

        from eyas.data.preview.from_tensors import preview as shown
        from eyas.preflight.pinning import pinned
        from eyas.tasks import TASKS
        from eyas.tasks.first_batches import first_batches
        from eyas.tasks.rows import load_rows

        with pinned(loaded, typer.echo, weights=False) as names:
            loaded, task = names.recipe, TASKS[loaded.task]
            rows = load_rows(loaded)
            splits = rows.splits
            found = [
                shown(batch, splits.train, rows.tokenizer, splits.labels)
                for batch in first_batches(loaded, task, rows.tokenizer, splits, batches)
            ]
        if html is None:
            from rich.console import Console

            from eyas.data.preview.terminal import print_batches

            typer.echo(f"{splits.report.text()}\n")
            print_batches(found, Console())
        else:
            from eyas.data.preview.html import page

            _write(html, page(recipe.stem, splits.report.text(), found))
            typer.echo(f"written: {html}")
        if len(found) < batches:
            typer.echo(f"an epoch has no more than these {len(found)} batches")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file}: cannot be written: {error.strerror}", param_hint="--html") from None
