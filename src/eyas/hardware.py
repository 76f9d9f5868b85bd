"""What this machine has. The only room that asks, besides distributed/topology.py."""

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

OF_ARITHMETIC = ("ATEN_", "ONEDNN_", "DNNL_", "MKL_", "CUBLAS_", "NVIDIA_TF32_")
"""What names of environment variables begin with that choose how a library computes."""


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
        """Return plain values for the manifest."""
        return asdict(self)


def this_machine() -> Hardware:
    """Return what torch can see here."""
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
    """Return what decides the last digits of a product here: devices, instructions, threads, settings of libraries."""
    import torch

    return {
        "device": this_machine().device,
        "instructions": dict(torch.cpu.get_capabilities()),
        "used_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "float32_products": torch.get_float32_matmul_precision(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(OF_ARITHMETIC)},
    }


def usable_cores() -> int:
    """Return how many cores this process may use, which a container may set below what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Return whether torch can compute on something other than the CPU here."""
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
    """Return how much memory this machine can still give to processes."""
    import psutil

    return int(psutil.virtual_memory().available)


def free_device_bytes(ranks: int) -> int:
    """Return how much memory one of `ranks` processes can still get: on its GPU, or its share of the machine's."""
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else free_bytes() // ranks


def peak_bytes() -> int:
    """Return the most memory held so far: the GPU's allocations, or this process's resident set on a CPU."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
