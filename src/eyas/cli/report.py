"""`eyas report`: compare base, tuned and merged model side by side."""

import typer

from eyas.cli.arguments import Base, BaseRevision, RunFolder
from eyas.cli.errors import errors_as_text
from eyas.cli.open_run import OpenRun, open_run
from eyas.verify import refuse_outdated


def report(run: RunFolder, base: Base = None, base_revision: BaseRevision = None) -> None:
    """Compare base, tuned and merged model on the same rows.

    A page with tables and plots is written to RUN/report.
    """
    with errors_as_text(), open_run(run, base=base, base_revision=base_revision) as opened:
        write(opened)


def write(opened: OpenRun, refusal: str | None = None) -> None:
    """Write a run's report and print its table; `refusal` explains a missing merged model."""
    from eyas.cli.tables import print_table
    from eyas.evaluation.compare import compare
    from eyas.evaluation.conclusion import conclusion, remarks
    from eyas.evaluation.evaluate import kind_of_rows, majority
    from eyas.evaluation.report import refuse_to_overwrite, write_report
    from eyas.evaluation.side_by_side import score_all

    run = opened.directory
    opened.refuse_changed_rows()
    refuse_to_overwrite(run)
    refuse_outdated(run, run.merged, f"remove it, and make it again with eyas merge {run.path}")
    records, answers = score_all(run, opened.recipe, opened.task.auto_model, opened.tokenizer, opened.splits)
    comparison = compare(records, majority(opened.recipe, opened.splits), kind_of_rows(opened.splits))
    write_report(run, opened.recipe, comparison, records, answers, refusal)
    print_table(comparison.title, comparison.table())
    print_table("differences on the same rows", comparison.differences_table())
    typer.echo("\n".join([conclusion(comparison, records), *remarks(run.read_manifest(), comparison.kind)]))
    typer.echo(f"report: {run.report / 'report.md'}")
