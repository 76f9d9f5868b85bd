"""Devices, memory and cores of this machine.

Only this file, allocator.py and distributed/topology.py read environment variables about them.
"""

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

ARITHMETIC_PREFIXES = ("ATEN_", "ONEDNN_", "DNNL_", "MKL_", "CUBLAS_", "NVIDIA_TF32_")
"""Prefixes of environment variables that choose how a library computes."""
EFFECT_PREFIXES = (
    *ARITHMETIC_PREFIXES, "ACCELERATE_", "DS_", "FSDP_", "PYTORCH_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_",
    "TRANSFORMERS_", "TRL_",
)  # fmt: skip
"""Prefixes of environment variables that change a run, or what the ranks say to each other."""
PLACE_ENDINGS = ("_CACHE", "_DIR", "_FILE", "_HOME", "_PATH")
"""Endings of environment variables that name a place, which may be another one on each machine."""


@dataclass(frozen=True)
class Hardware:
    """The devices of one machine."""

    device: str
    device_count: int
    device_bytes: int
    cpu_cores: int
    memory_bytes: int
    system: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the manifest."""
        return asdict(self)


def this_machine() -> Hardware:
    """Return the devices that torch sees on this machine."""
    import psutil
    import torch

    cuda = torch.cuda.is_available()
    return Hardware(
        device=torch.cuda.get_device_name(0) if cuda else platform.processor() or platform.machine(),
        device_count=torch.cuda.device_count() if cuda else 0,
        device_bytes=torch.cuda.get_device_properties(0).total_memory if cuda else 0,
        cpu_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
    )


def arithmetic() -> dict[str, Any]:
    """Return everything that affects rounding here: device, instructions, threads and library settings."""
    import torch

    return {
        "device": this_machine().device,
        "instructions": dict(torch.cpu.get_capabilities()),
        "used_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "float32_products": torch.get_float32_matmul_precision(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(ARITHMETIC_PREFIXES)},
    }


def settings_with_effect() -> dict[str, str]:
    """Return the environment variables that must be the same on all ranks, in order."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(EFFECT_PREFIXES) and not name.endswith(PLACE_ENDINGS)
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use; a container may limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Return whether torch has an accelerator here."""
    import torch

    return bool(torch.accelerator.is_available())


def gpu_count() -> int:
    """Return how many GPUs torch sees through CUDA or ROCm."""
    import torch

    return int(torch.cuda.device_count())


def first_visible_gpu() -> str:
    """Return the first visible GPU as `CUDA_VISIBLE_DEVICES` names it: an index or a UUID."""
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0].strip()


def free_bytes() -> int:
    """Return the bytes of memory that this machine has available."""
    import psutil

    return int(psutil.virtual_memory().available)


def free_device_bytes(ranks: int) -> int:
    """Return the bytes that one of `ranks` processes can still use: on its GPU, or its share of main memory."""
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else free_bytes() // ranks


def peak_bytes() -> int:
    """Return the peak memory in bytes: allocated on the GPU or, on a CPU, resident in this process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
