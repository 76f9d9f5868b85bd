"""The first batches of a run, from its own trainer, without its model."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eyas.data.splits import Splits
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.task import Task

STAND_INS = {"CAUSAL_LM": "LlamaConfig", "SEQ_CLS": "BertConfig"}
"""Config of transformers for a model of each of peft's task types; what a batch holds hangs on none of its numbers."""
COMPUTES = ("tf32", "torch_compile", "use_liger_kernel", "activation_offloading")
"""Arguments that may need a GPU that is not here, and change no batch."""


def first_batches(recipe: Recipe, task: Task, tokenizer: Any, splits: Splits, count: int) -> list[dict[str, Any]]:
    """Return what the forward pass gets first, at most one epoch of it: a dictionary of tensors for each micro-batch.

    They come from the loader of the trainer that trains the recipe, so its sampler, seed, packing and collator are the
    run's. Only the model is another, tiny and random. Nothing is written where the recipe would write. Several ranks
    share these batches among them, one after the other.
    """
    bare = _without_what_only_computes(recipe)
    with TemporaryDirectory() as folder, _without_notes():
        arguments = task.arguments_for(bare, RunDirectory(Path(folder)))
        trainer = task.build_trainer(bare, arguments, _stand_in(task, tokenizer, splits.labels), tokenizer, splits)
        return list(islice(trainer.get_train_dataloader(), count))


def _without_what_only_computes(recipe: Recipe) -> Recipe:
    training = recipe.training
    off = dict.fromkeys(("bf16", "fp16", *(name for name in COMPUTES if name in training.library_arguments)), False)
    return recipe.model_copy(
        update={"adapter": None, "quantization": None, "training": training.model_copy(update=off)}
    )


@contextmanager
def _without_notes() -> Iterator[None]:
    """Say nothing of the stand-in, such as how it keeps packed documents apart: the recipe's model may not."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _stand_in(task: Task, tokenizer: Any, labels: list[str] | None) -> Any:
    """Return a random model of one layer that the task's trainer takes for the recipe's."""
    import transformers

    config = getattr(transformers, STAND_INS[task.peft_task_type])(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        **({} if labels is None else {"num_labels": len(labels)}),
    )
    return getattr(transformers, task.auto_model).from_config(config)
