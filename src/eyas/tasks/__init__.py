"""What a model can learn to do here: the whole list."""

from eyas.tasks import sequence_classification, sft
from eyas.tasks.task import Task

TASKS: dict[str, Task] = {"sft": sft.TASK, "sequence_classification": sequence_classification.TASK}

__all__ = ["TASKS", "Task"]
