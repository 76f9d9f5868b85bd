"""Shapes of a run's JSON records, which may be damaged or come from somebody else."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Record(BaseModel):
    """Record that may have more entries than those that are read."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Digests(_Record):
    recipe: str = ""
    data: dict[str, str] = {}
    sources: dict[str, str] = {}
    base: str = ""
    weights: str = ""
    model_files: dict[str, str] = {}


class _HubName(_Record):
    kind: str
    name: str
    revision: str | None
    commit: str


class _Topology(_Record):
    processes: int
    strategy: str


class _Parameters(_Record):
    trainable: int
    total: int


class _Quantized(_Record):
    kind: str
    layers: int
    left: list[str]


class _Summary(_Record):
    topology: _Topology
    parameters: _Parameters | None = None
    quantized: _Quantized | None = None


class _Hardware(_Record):
    device: str
    device_count: int
    cpu_cores: int


class _Released(_Record):
    step: int
    steps: int
    metric: str | None
    value: float | None


class _File(_Record):
    bytes: int
    sha256: str


class _Origin(_Record):
    checkpoint: str


class _Manifest(_Record):
    status: str = ""
    reason: str | None = None
    eyas: str = ""
    versions: dict[str, str] = {}
    runs: _Summary | None = None
    labels: list[str] | None = None
    hub: list[_HubName] = []
    digests: _Digests = _Digests()
    lineage: list[dict[str, Any]] = []
    records: dict[str, _File] = {}
    hardware: _Hardware | None = None
    ended: str | None = None
    steps: int | None = None
    released: _Released | None = None
    train_seconds: float | None = None
    peak_bytes: int | None = None
    finished_from: _Origin | None = None


class _LogLine(_Record):
    step: int
    loss: float | None = None
    eval_loss: float | None = None
    train_loss: float | None = None
    train_runtime: float | None = None
    peak_bytes: int | None = None


def as_manifest(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's manifest. Raises ValueError for other entries than eyas writes."""
    return _checked(_Manifest, record)


def as_log_line(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a run's metrics. Raises ValueError for other entries than eyas writes."""
    return _checked(_LogLine, record)


def _checked(shape: type[_Record], record: dict[str, Any]) -> dict[str, Any]:
    try:
        shape.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return record
