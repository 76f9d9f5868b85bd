"""Train several recipes on the same ranks, and break a step of each.

Reads a list of trials from $EYAS_TEST_TRIALS and records, for each rank, how each of them ended.
"""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import Trainer

sys.path.insert(0, "tests")
import stand_ins
from eyas.cli.errors import errors_as_text, quieten_libraries
from eyas.errors import EyasError
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.training.run import train

RANK = int(os.environ.get("RANK", "0"))
quieten_libraries()
torch.set_num_threads(1)
plain_step, plain_optimizer = Trainer.training_step, Trainer.create_optimizer
trial: dict = {}
rows: list[int] = []


def broken_step(self, model, inputs, *args, **kwargs):
    if self.state.global_step + 1 != trial.get("step"):
        return plain_step(self, model, inputs, *args, **kwargs)
    rows.extend(row + 1 for row in stand_ins.row_numbers(inputs, self.processing_class))
    if RANK not in trial["ranks"]:
        return plain_step(self, model, inputs, *args, **kwargs)
    if trial["kind"] == "memory":
        torch.empty(2**55)
    parameter = next(p for p in self.model.parameters() if p.requires_grad)
    times = float("nan") if trial["kind"] == "gradient" else 1.0
    hook = parameter.register_hook(lambda gradient: gradient * times)
    loss = plain_step(self, model, inputs, *args, **kwargs)
    hook.remove()
    return loss * float("inf") if trial["kind"] == "loss" else loss


def cut_before_training(self, *more):
    if trial["kind"] == "detached":
        module = self.model.get_submodule(trial["module"])
        module.register_forward_hook(lambda _module, _inputs, output: output.detach())
    return plain_optimizer(self, *more)


Trainer.training_step = broken_step
Trainer.create_optimizer = cut_before_training
for number, trial in enumerate(json.loads(Path(os.environ["EYAS_TEST_TRIALS"]).read_text())):
    rows.clear()
    recipe = load_recipe("recipes/falcon7b_lora.yaml", trial["words"])
    run = RunDirectory(Path(recipe.run_folder))
    message = "trained to its end"
    with errors_as_text() if trial["kind"] == "memory" else nullcontext():
        try:
            train(recipe, run, resume=trial.get("resume", False))
        except EyasError as mistake:
            message = str(mistake)
            if trial["kind"] == "memory":
                raise
    without = run.read_manifest().get("without_gradient")
    record = {"message": message, "rows": rows, "kept": run.checkpoint_steps(), "without_gradient": without}
    Path(f"{os.environ['EYAS_TEST_TRIALS']}.{number}.{RANK}").write_text(json.dumps(record))
