"""What is asked of the base, the tuned and the merged model once training is over."""

from pydantic import Field

from eyas.recipe.section import Section


class Evaluation(Section):
    """Held-out scores before and after."""

    rows: int | None = Field(None, gt=0, description="Score this many held-out rows; all when left out.")
    prompts: list[str] = Field([], description="Prompts answered by the base and the tuned model in the report.")
    max_new_tokens: int = Field(64, gt=0, description="Longest answer, in tokens.")
    json_fields: list[str] = Field(
        [], description="Answers are JSON; score how many parse and how often each of these fields is right (sft)."
    )
