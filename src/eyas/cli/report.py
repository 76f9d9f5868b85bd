"""`eyas report`: compare base, tuned and merged model side by side."""

import typer

from eyas.cli.arguments import Base, BaseRevision, RunFolder
from eyas.cli.errors import errors_as_text
from eyas.cli.open_run import OpenRun, open_run


def report(run: RunFolder, base: Base = None, base_revision: BaseRevision = None) -> None:
    """Compare base, tuned and merged model on the same held-out rows; write a table and plots to RUN/report."""
    with errors_as_text(), open_run(run, base=base, base_revision=base_revision) as opened:
        write(opened)


def write(opened: OpenRun, refusal: str | None = None) -> None:
    """Write a run's report and print its table; `refusal` explains a missing merged model."""
    from eyas.cli.tables import print_table
    from eyas.evaluation.compare import compare
    from eyas.evaluation.evaluate import majority
    from eyas.evaluation.report import write_report
    from eyas.evaluation.side_by_side import score_all

    opened.refuse_changed_rows()
    records, answers = score_all(
        opened.directory, opened.recipe, opened.task.auto_model, opened.tokenizer, opened.splits
    )
    comparison = compare(records, majority(opened.recipe, opened.splits))
    write_report(opened.directory, opened.recipe, comparison, records, answers, refusal)
    print_table(f"{comparison.rows} held-out rows, 95 % bootstrap intervals", comparison.table())
    typer.echo(f"report: {opened.directory.report / 'report.md'}")
