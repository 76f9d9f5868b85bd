"""The evaluation section: scores after training."""

from pydantic import Field

from eyas.recipe.section import Section


class Evaluation(Section):
    """Scores of the base, tuned and merged models on held-out rows."""

    rows: int | None = Field(None, gt=0, description="Score this many held-out rows; left out, all.")
    prompts: list[str] = Field([], description="Prompts that the base and the tuned model answer in the report (sft).")
    max_new_tokens: int = Field(64, gt=0, description="Longest answer, in tokens (sft).")
    json_fields: list[str] = Field(
        [],
        description="Answers are JSON objects: report the share that parses, and the accuracy of each of these fields "
        "(sft).",
    )
