"""`eyas generate`: ask a run's model."""

from typing import Annotated

import typer

from eyas.cli.arguments import BaseRevision, RunFolder, open_run
from eyas.cli.errors import mistakes_as_text


def generate(
    run: RunFolder,
    prompt: Annotated[list[str], typer.Option(help="What to ask; may be given several times.")],
    system: Annotated[
        str | None, typer.Option(help="What the model is told first, where it was trained with that.")
    ] = None,
    which: Annotated[str, typer.Option("--model", help="tuned, merged or base.")] = "tuned",
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer; the recipe's own if left out.")] = None,
    base_revision: BaseRevision = None,
) -> None:
    """Answer prompts with a run's tuned (or merged, or base) model, greedily."""
    with mistakes_as_text(), open_run(run, base_revision=base_revision) as opened:
        from eyas.data.prompts import as_chat, prompt_ids
        from eyas.errors import PreflightError
        from eyas.inference.generate import generate as answer
        from eyas.inference.load import load, which_model
        from eyas.recipe.task_traits import TASK_TRAITS

        if not TASK_TRAITS[opened.recipe.task].generates:
            raise PreflightError(
                f"{run}: a {opened.recipe.task} model does not write; score it with eyas evaluate {run}"
            )
        model = load(opened.directory, opened.recipe, opened.task.auto_model, opened.labels, which_model(which))
        options = opened.recipe.data.chat_template_kwargs
        prompts = [prompt_ids(opened.tokenizer, as_chat(opened.tokenizer, text, system), options) for text in prompt]
        longest = max_new_tokens or opened.recipe.evaluation.max_new_tokens
        for text in answer(model, opened.tokenizer, prompts, longest):
            typer.echo(text)
