"""`eyas merge`: merge a run's adapter into its base and verify the result."""

from typing import Annotated

import typer

from eyas.cli.arguments import Base, BaseRevision, RunFolder
from eyas.cli.errors import errors_as_text
from eyas.cli.open_run import open_run
from eyas.cli.report import write


def merge(
    run: RunFolder,
    onto_published: Annotated[
        bool,
        typer.Option(
            "--onto-published", help="Merge into the published full-precision weights instead, to see the difference."
        ),
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="Data type of the merged weights: float32, bfloat16 or float16; default: export.dtype."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the model even if a check refuses it.")] = False,
    base: Base = None,
    base_revision: BaseRevision = None,
    then_report: Annotated[bool, typer.Option("--report", help="Then run eyas report.")] = False,
) -> None:
    """Merge a run's adapter into its base, and compare both.

    The base is the one that was trained on, with its quantized weights. The merged model is written to RUN/merged.

    Exits with 1 and writes no model if the merged model differs from the trained one. With --report, the report is
    written even then.
    """
    from eyas.export.fresh_process import FreshProcess

    overrides = [] if dtype is None else [f"export.dtype={dtype}"]
    with errors_as_text(), FreshProcess() as reader, open_run(run, overrides, base, base_revision) as opened:
        from eyas.data.splits import tensors
        from eyas.evaluation.evaluate import held_out
        from eyas.export.merge import merge as merge_run
        from eyas.export.reference import FinishedRun
        from eyas.export.refusals import ArtifactRefused

        rows = held_out(opened.recipe, opened.kept)[: opened.recipe.export.probe_rows]
        sequences = opened.kept.spec.sequences
        probes = [tensors(sequence) for _, example in rows for sequence in sequences(example)]
        finished = FinishedRun(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, opened.tokenizer)
        try:
            merge_run(finished, probes, reader, onto_published, force)
        except ArtifactRefused as refusal:
            if then_report:
                write(opened, str(refusal))
            raise
        typer.echo(f"merged: {opened.directory.merged}{'' if then_report else f' (next: eyas report {run})'}")
        if then_report:
            write(opened)
