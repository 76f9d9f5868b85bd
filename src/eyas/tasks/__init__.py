"""All tasks, by their name in a recipe."""

from eyas.tasks import sequence_classification, sft, token_classification
from eyas.tasks.task import Task

TASKS: dict[str, Task] = {
    "sft": sft.TASK,
    "sequence_classification": sequence_classification.TASK,
    "token_classification": token_classification.TASK,
}

__all__ = ["TASKS", "Task"]
