"""`eyas evaluate`: one of a run's models on its held-out rows."""

from typing import Annotated, Any

import typer

from eyas.cli.arguments import BaseRevision, RunFolder, open_run
from eyas.cli.errors import mistakes_as_text


def evaluate(
    run: RunFolder,
    which: Annotated[str, typer.Option("--model", help="tuned, merged or base.")] = "tuned",
    base_revision: BaseRevision = None,
) -> None:
    """Score a run's tuned (or merged, or base) model on its held-out rows, with 95 % bootstrap intervals."""
    with mistakes_as_text(), open_run(run, base_revision=base_revision) as opened:
        from eyas.cli.tables import print_table
        from eyas.evaluation.compare import compare
        from eyas.evaluation.evaluate import evaluate as score
        from eyas.evaluation.evaluate import majority
        from eyas.inference.load import load, which_model

        name = which_model(which)
        model = load(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, name)
        records: dict[str, list[Any]] = {name: score(model, opened.tokenizer, opened.recipe, opened.splits)}
        comparison = compare(records, majority(opened.recipe, opened.splits))
        print_table(f"{comparison.rows} held-out rows", comparison.table())
