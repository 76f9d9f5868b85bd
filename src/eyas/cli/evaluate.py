"""`eyas evaluate`: score one model of a run on its held-out rows."""

import typer

from eyas.cli.arguments import Base, BaseRevision, ModelName, RunFolder
from eyas.cli.errors import errors_as_text
from eyas.cli.open_run import open_run


def evaluate(run: RunFolder, which: ModelName = "tuned", base: Base = None, base_revision: BaseRevision = None) -> None:
    """Score one model of a run, with 95 % intervals.

    Rows of data.test are scored, or else the held-out rows. A classifier's classes are scored one by one.
    """
    with errors_as_text(), open_run(run, base=base, base_revision=base_revision, which=which) as opened:
        from eyas.cli.tables import print_table
        from eyas.evaluation.classes import class_table, never_predicted, scores_of_classes
        from eyas.evaluation.compare import compare
        from eyas.evaluation.conclusion import remarks
        from eyas.evaluation.evaluate import evaluate as score
        from eyas.evaluation.evaluate import kind_of_rows, majority
        from eyas.inference.load import load, which_model

        name = which_model(which)
        opened.refuse_changed_rows()
        model = load(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, name)
        records = score(model, opened.tokenizer, opened.recipe, opened.splits)
        comparison = compare({str(name): records}, majority(opened.recipe, opened.splits), kind_of_rows(opened.splits))
        print_table(comparison.title, comparison.table())
        if scores := scores_of_classes(records):
            print_table("classes", class_table(scores))
        lines = [never_predicted(scores), *remarks(opened.directory.read_manifest(), comparison.kind)]
        typer.echo("\n".join(filter(None, lines)))
