"""What really runs, held against what was asked for."""

from dataclasses import asdict, dataclass
from typing import Any

from eyas.distributed.topology import Topology, differences, running_topology
from eyas.errors import PreflightError
from eyas.model.quantization import quantized_names
from eyas.recipe import Recipe
from eyas.recipe.steps import accumulation_steps, mixed_precision


@dataclass(frozen=True)
class RunSummary:
    """What one look at the built trainer tells."""

    topology: Topology
    device: str
    dtype: str
    quantization: str
    mixed_precision: str
    attention: str
    quantized_layers: int
    trainable: int
    total: int
    trainable_dtypes: list[str]
    micro_batch: int
    accumulation: int
    rows: int | None
    """What an epoch is made of: rows, or packed sequences; None for a stream."""
    packed: bool

    @property
    def global_batch(self) -> int:
        """Rows per optimizer step over all ranks."""
        return self.micro_batch * self.accumulation * self.topology.processes

    @property
    def taken_again(self) -> int:
        """How many rows accelerate takes again at the end of an epoch, so that all ranks get a full batch."""
        each_takes = self.micro_batch * self.topology.processes
        return -(self.rows or 0) % each_takes if self.topology.processes > 1 else 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return {**asdict(self), "global_batch": self.global_batch}

    def text(self) -> str:
        """Return the card as it is printed."""
        compute = {"no": self.dtype, "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}[self.mixed_precision]
        weights = self.dtype if not self.quantized_layers else f"{self.quantization}, the rest {self.dtype}"
        trained = "+".join(self.trainable_dtypes)
        return "\n".join(
            [
                "what runs:",
                f"  ranks         {self.topology.processes} × {self.device}, {self.topology.strategy}",
                f"  precision     weights {weights}; computing in {compute}; training {trained}",
                f"  attention     {self.attention}",
                f"  quantized     {self.quantized_layers} layers",
                f"  trainable     {self.trainable:,} of {self.total:,} parameters ({self.trainable / self.total:.2%})",
                f"  global batch  {self.global_batch} = {self.micro_batch} micro × {self.accumulation} accumulated "
                f"× {self.topology.processes} ranks; {self._epoch()}",
            ]
        )

    def _epoch(self) -> str:
        if self.rows is None:
            return "streamed rows"
        epoch = f"{self.rows:,} {'packed sequences' if self.packed else 'rows'}"
        return f"{epoch}, and the first {self.taken_again} again to fill the last batch" if self.taken_again else epoch


def run_summary_of(recipe: Recipe, trainer: Any) -> RunSummary:
    """Return what the trainer, its model and its accelerator say of themselves."""
    model = trainer.model
    trained = [p for p in model.parameters() if p.requires_grad]
    quantized = quantized_names(model)
    return RunSummary(
        topology=running_topology(trainer.accelerator),
        device=str(trainer.accelerator.device.type),
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=_quantization(recipe),
        mixed_precision=str(trainer.accelerator.mixed_precision),
        attention=str(getattr(model.config, "_attn_implementation", "unknown")),
        quantized_layers=len(quantized),
        trainable=sum(weights_in(p) for p in trained),
        total=sum(weights_in(p) for p in model.parameters()),
        trainable_dtypes=sorted({str(p.dtype).removeprefix("torch.") for p in trained}),
        micro_batch=trainer.args.per_device_train_batch_size,
        accumulation=trainer.args.gradient_accumulation_steps,
        rows=None if recipe.data.streaming else len(trainer.train_dataset),
        packed=bool(getattr(trainer.args, "packing", False)),
    )


def refuse_what_was_not_asked(card: RunSummary, asked: Topology, recipe: Recipe) -> None:
    """Raise PreflightError on every rank, with one line for each thing that would run otherwise than asked."""
    found = differences(asked, card.topology)
    steps = accumulation_steps(recipe, card.topology.processes)
    if card.global_batch != recipe.training.global_batch_size or card.accumulation != steps:
        found.append(
            f"training.global_batch_size {recipe.training.global_batch_size} was asked for; {card.global_batch} runs"
        )
    if card.mixed_precision != mixed_precision(recipe):
        found.append(f"{mixed_precision(recipe)} autocast was asked for; {card.mixed_precision} runs")
    if (recipe.quantization is not None) != bool(card.quantized_layers):
        wanted = "asked for" if recipe.quantization else "not asked for"
        found.append(f"quantization was {wanted}; {card.quantized_layers} layers are quantized")
    if card.trainable == 0:
        found.append("nothing would train")
    if found:
        raise PreflightError("what would run is not what was asked:\n  " + "\n  ".join(found))


def weights_in(parameter: Any) -> int:
    """Return how many weights a parameter stands for: ZeRO-3 holds them elsewhere, 4-bit storage holds two a byte."""
    if hasattr(parameter, "ds_numel"):
        return int(parameter.ds_numel)
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(parameter.numel())


def _quantization(recipe: Recipe) -> str:
    quantization = recipe.quantization
    if quantization is None:
        return "none"
    return f"4-bit {quantization.bnb_4bit_quant_type}" if quantization.load_in_4bit else "8-bit"
