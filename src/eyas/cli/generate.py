"""`eyas generate`: answer prompts with a model of a run."""

from typing import Annotated

import typer

from eyas.cli.arguments import Base, BaseRevision, ModelName, RunFolder
from eyas.cli.errors import errors_as_text
from eyas.cli.open_run import open_run


def generate(
    run: RunFolder,
    prompt: Annotated[list[str], typer.Option(help="Prompt to answer; may be repeated.")],
    system: Annotated[
        str | None, typer.Option(help="System message, for a model that was trained with system messages.")
    ] = None,
    which: ModelName = "tuned",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer in tokens; default: evaluation.max_new_tokens of the recipe."),
    ] = None,
    base: Base = None,
    base_revision: BaseRevision = None,
) -> None:
    """Answer prompts with a model of a run, with greedy decoding."""
    with errors_as_text(), open_run(run, base=base, base_revision=base_revision, which=which) as opened:
        from eyas.data.prompts import user_prompt
        from eyas.data.report import DataReport
        from eyas.errors import PreflightError
        from eyas.files import counted
        from eyas.inference.generate import generate as answer
        from eyas.inference.load import load, which_model
        from eyas.recipe.task_traits import TASK_TRAITS

        if not TASK_TRAITS[opened.recipe.task].generates:
            raise PreflightError(f"{run}: this is a classifier and writes no text; score it with eyas evaluate {run}")
        options, report = opened.recipe.data.chat_template_kwargs, DataReport.of_run(opened.directory)
        form = None if report is None else report.train.prompts
        prompts = [user_prompt(opened.tokenizer, text, options, system, form) for text in prompt]
        model = load(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, which_model(which))
        longest = max_new_tokens or opened.recipe.evaluation.max_new_tokens
        for number, written in enumerate(answer(model, opened.tokenizer, prompts, longest), start=1):
            typer.echo(written.text)
            if written.is_cut:
                limit = f"at {counted(longest, 'token')} (--max-new-tokens) or the model's last position"
                typer.echo(f"answer {number}: cut {limit}", err=True)
