"""`eyas generate`: answer prompts with a model of a run."""

from typing import Annotated

import typer

from eyas.cli.arguments import BaseRevision, ModelName, RunFolder
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
        int | None, typer.Option(help="Longest answer in tokens; default: evaluation.max_new_tokens of the recipe.")
    ] = None,
    base_revision: BaseRevision = None,
) -> None:
    """Answer prompts with a model of a run, with greedy decoding."""
    with errors_as_text(), open_run(run, base_revision=base_revision) as opened:
        from eyas.data.prompts import as_chat, prompt_ids
        from eyas.errors import PreflightError
        from eyas.inference.generate import generate as answer
        from eyas.inference.load import load, which_model
        from eyas.recipe.task_traits import TASK_TRAITS

        if not TASK_TRAITS[opened.recipe.task].generates:
            raise PreflightError(f"{run}: this is a classifier and writes no text; score it with eyas evaluate {run}")
        model = load(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, which_model(which))
        options = opened.recipe.data.chat_template_kwargs
        prompts = [prompt_ids(opened.tokenizer, as_chat(opened.tokenizer, text, system), options) for text in prompt]
        longest = max_new_tokens or opened.recipe.evaluation.max_new_tokens
        for text in answer(model, opened.tokenizer, prompts, longest):
            typer.echo(text)
