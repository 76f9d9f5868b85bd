"""README of an adapter: its base, and the code that opens both as they were trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eyas.model.adapter import METHODS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

MERGES = "`eyas merge` writes a model that needs neither this folder nor peft."
FALCON = """from transformers.models.falcon import modeling_falcon

modeling_falcon.FalconLinear = torch.nn.Linear  # transformers 5.24 quantizes no other class
"""


def adapter_readme(model: "PeftModel", digests: Mapping[str, Any]) -> str:
    """Return the README of a trained adapter; `digests` are those of its run."""
    base, config = model.get_base_model(), model.peft_config["default"]
    method, name = config.peft_type.value.lower(), config.base_model_name_or_path
    return "\n".join([
        "---", f"base_model: {name}", "library_name: peft", "---", f"# {method} adapter", "",
        f"For `{name}`" + (f" at commit `{config.revision}`." if config.revision else f", `{digests['base']}`."),
        _of_quantization(base), "", "```python", _code(base, name, config.revision), "```", "",
        *([MERGES, ""] if METHODS[method].merges else []),
    ])  # fmt: skip


def _of_quantization(base: "PreTrainedModel") -> str:
    quantized = getattr(base.config, "quantization_config", None)
    if quantized is None:
        return "It was trained on the base's own weights. Open it like this:"
    bits = 4 if quantized.load_in_4bit else 8
    return (
        f"**It was trained on the base in {bits} bits, and it corrects these weights.** On the published weights it is "
        "another model, and no library warns of that. Open it like this:"
    )


def _code(base: "PreTrainedModel", name: str, revision: str | None) -> str:
    """Return Python code that opens base and adapter."""
    kind, options = type(base).__name__, {"revision": revision} if revision else {}
    if kind.endswith("Classification"):
        options["id2label"] = base.config.id2label
    lines = [f"    {key}={value!r}," for key, value in options.items()] + [f"    dtype={base.config.dtype},"]
    quantized = getattr(base.config, "quantization_config", None)
    if quantized is not None:
        settings = ", ".join(f"{key}={value!r}" for key, value in quantized.to_diff_dict().items() if _is_setting(key))
        lines.append(f"    quantization_config=BitsAndBytesConfig({settings}),")
    imported = f"{kind}, BitsAndBytesConfig" if quantized is not None else kind
    return "\n".join([
        "import torch", "from peft import PeftModel", f"from transformers import {imported}",
        *([FALCON.rstrip()] if quantized is not None and base.config.model_type == "falcon" else []),
        "", f"base = {kind}.from_pretrained(", f"    {name!r},", *lines, ")",
        'model = PeftModel.from_pretrained(base, "the folder of this file")',
    ])  # fmt: skip


def _is_setting(key: str) -> bool:
    return key != "quant_method" and not key.startswith("_")
