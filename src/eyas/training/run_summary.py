"""Run summary of the built trainer, checked against recipe and launch."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eyas.distributed.topology import Topology, differences, running_topology
from eyas.errors import PreflightError
from eyas.files import counted
from eyas.model.parameters import ParameterCount, count_parameters
from eyas.model.quantization import QuantizedWeights, quantized_weights
from eyas.recipe import Recipe
from eyas.recipe.steps import accumulation_steps, mixed_precision

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments


@dataclass(frozen=True)
class RunSummary:
    """Facts read from the built trainer."""

    topology: Topology
    device: str
    dtype: str
    mixed_precision: str
    attention: str
    quantized: QuantizedWeights
    parameters: ParameterCount
    trainable_dtypes: list[str]
    micro_batch: int
    accumulation: int
    rows: int | None
    """Rows, or packed sequences, per epoch; None for a stream."""
    packed: bool

    @property
    def global_batch(self) -> int:
        """Rows per optimizer step over all ranks."""
        return self.micro_batch * self.accumulation * self.topology.processes

    @property
    def repeated_rows(self) -> int:
        """Rows that accelerate repeats at an epoch's end, to fill all ranks' batches."""
        rows_at_once = self.micro_batch * self.topology.processes
        return -(self.rows or 0) % rows_at_once if self.topology.processes > 1 else 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return {**asdict(self), "global_batch": self.global_batch}

    @property
    def quantization(self) -> str:
        """Quantized layers as text, with what is not quantized."""
        quantized, total = self.quantized, self.parameters.total
        if not quantized.layers:
            return "none"
        share = f"{quantized.weights:,} of {total:,} parameters ({quantized.weights / total:.2%})"
        left = f"; {quantized.left_as_text()} stay in {self.dtype}" if quantized.left else ""
        return f"{quantized.kind} in {counted(quantized.layers, 'layer')}: {share}{left}"

    def text(self) -> str:
        """Return the run summary as printed."""
        compute = {"no": self.dtype, "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}[self.mixed_precision]
        weights = self.dtype if not self.quantized.layers else f"{self.quantized.kind}, the rest {self.dtype}"
        processes = counted(self.topology.processes, "process")
        strategy = "" if self.topology.strategy == "single" else f", {self.topology.strategy}"
        return "\n".join(
            [
                "run summary:",
                f"  processes       {processes}, {self.device.upper()}{strategy}",
                f"  precision       weights {weights}; computing in {compute}; training "
                f"{'+'.join(self.trainable_dtypes)}",
                f"  attention       {self.attention}",
                f"  quantized       {self.quantization}",
                f"  trainable       {self.parameters}",
                f"  batch per step  {self.global_batch} = {self.micro_batch} per device × "
                f"{counted(self.accumulation, 'accumulation')} × {processes}; {self._epoch()}",
            ]
        )

    def _epoch(self) -> str:
        if self.rows is None:
            return "streamed rows"
        unit = "packed sequences" if self.packed else "rows"
        refill = f"; the last batch is filled with the first {self.repeated_rows} {unit}" if self.repeated_rows else ""
        return f"{self.rows:,} {unit}{refill}"


def run_summary_of(recipe: Recipe, trainer: "Trainer") -> RunSummary:
    """Return the facts that the trainer, its model and its accelerator hold."""
    model = trainer.model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return RunSummary(
        topology=running_topology(trainer.accelerator),
        device=str(trainer.accelerator.device.type),
        dtype=str(model.dtype).removeprefix("torch."),
        mixed_precision=str(trainer.accelerator.mixed_precision),
        attention=str(getattr(model.config, "_attn_implementation", "unknown")),
        quantized=quantized_weights(model),
        parameters=count_parameters(model),
        trainable_dtypes=sorted({str(p.dtype).removeprefix("torch.") for p in trained}),
        micro_batch=trainer.args.per_device_train_batch_size,
        accumulation=trainer.args.gradient_accumulation_steps,
        rows=None if recipe.data.streaming else len(trainer.train_dataset),
        packed=bool(getattr(trainer.args, "packing", False)),
    )


def refuse_data_parallel(arguments: "TrainingArguments") -> None:
    """Refuse one process on several GPUs: transformers would train under nn.DataParallel. Raises PreflightError.

    There each GPU takes a micro-batch of its own, so the global batch would be a multiple of the recipe's.
    """
    if arguments.n_gpu > 1:
        raise PreflightError(
            f"hardware: this one process sees {arguments.n_gpu} GPUs and would train under nn.DataParallel, with a "
            "larger global batch. Set CUDA_VISIBLE_DEVICES=0 to use one of them, or start one process per GPU: "
            f"accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes {arguments.n_gpu} …"
        )


def refuse_float16_autocast(recipe: Recipe, gpu: bool) -> None:
    """Refuse float16 autocast on a CPU: accelerate 1.15 leaves it out silently there. Raises PreflightError."""
    if mixed_precision(recipe) == "fp16" and not gpu:
        cause = "training.fp16" if recipe.training.fp16 else "model.dtype float16"
        raise PreflightError(
            f"{cause}: float16 autocast needs a GPU, and torch finds none here. Set training.fp16: false, or use "
            "bfloat16 (model.dtype: bfloat16)"
        )


def refuse_what_was_not_requested(trainer: "Trainer", summary: RunSummary, requested: Topology, recipe: Recipe) -> None:
    """Raise PreflightError for each difference between recipe, launch and trainer."""
    refuse_data_parallel(trainer.args)
    problems = differences(requested, summary.topology)
    steps = accumulation_steps(recipe, summary.topology.processes)
    if summary.global_batch != recipe.training.global_batch_size or summary.accumulation != steps:
        problems.append(
            f"training.global_batch_size {recipe.training.global_batch_size} was requested; {summary.global_batch} runs"
        )
    if summary.mixed_precision != mixed_precision(recipe):
        problems.append(f"{mixed_precision(recipe)} autocast was requested; {summary.mixed_precision} runs")
    if (recipe.quantization is not None) != bool(summary.quantized.layers):
        wanted = "requested" if recipe.quantization else "not requested"
        problems.append(f"quantization was {wanted}; {counted(summary.quantized.layers, 'quantized layer')} found")
    if summary.parameters.trainable == 0:
        problems.append("no parameter is trainable")
    if problems:
        raise PreflightError("the trainer does not match the recipe:\n  " + "\n  ".join(problems))
