"""Release protocol: write, reopen in a fresh process, compare, seal or refuse."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eyas.distributed.console import say
from eyas.errors import ExportError
from eyas.export.model_card import model_card
from eyas.export.parity import Parity, Probe
from eyas.export.proof import Evidence, Proof, cost_as_text
from eyas.export.recording import Recording, Written
from eyas.export.refusals import refuse_another_function, refuse_lost_update, refuse_other_tensors
from eyas.files import write_json
from eyas.run_directory import RunDirectory
from eyas.sealing import files_in, listed, put_in_place, write_seal
from eyas.verify import MADE_FROM, refuse_links, sources_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from eyas.export.reference import FinishedRun, Reference

FEW = 4
"""Number of probes for the cheap checks.

These are float32's own rounding, and the file against the written weights.
"""


class Source(Protocol):
    """Model that an artifact is written from."""

    @property
    def evidence(self) -> Evidence:
        """Facts about the model that were measured before it is written."""


@dataclass(frozen=True)
class Artifact:
    """Form in which a trained model is released.

    A writer may stream its tensors: nothing here holds the whole model.
    """

    name: str
    """Path of its folder in the run, such as `merged`."""
    write: Callable[[Any, Sequence[Probe], Path], Written]
    """Function of (source, probes, folder). Saves the source and returns its predictions for the probes.

    The source's weights are free to go afterwards: their memory is needed for the fresh process.
    """
    load: Callable[[Path, str], "PreTrainedModel"]
    """Function of (folder, auto class). Opens a saved artifact as a user would, computing in float32."""


@dataclass(frozen=True)
class Reopened:
    """Comparison of a reopened artifact with the recording."""

    to_tuned: Parity
    """Distance from the trained model, on all probes."""
    to_written: Parity
    """Distance from the weights as written, on the first probes."""
    other_tensors: list[str]
    """Names of tensors that differ from those written, if only in a bit."""


class Reader(Protocol):
    """Process that reopens an artifact; see `fresh_process`."""

    def compare(self, name: str, folder: Path, auto_model: str, recorded: Path) -> Reopened:
        """Return the comparison of the artifact `name` in a folder with a recording."""


def release(
    artifact: Artifact, source: Source, run: "FinishedRun", reference: "Reference", reader: Reader, force: bool = False
) -> Proof:
    """Write, reopen, compare and seal an artifact.

    It is reopened in a fresh process and compared with the reference. Returns the proof, which travels in the sealed
    folder: in `parity.json`, the manifest and the model card. Raises ArtifactRefused, and leaves nothing behind, for an
    artifact that is not the trained model. `force` releases it anyway, but never with other tensors than those written.
    """
    final = run.directory.artifact(artifact.name)
    if final.exists():
        raise ExportError(f"{final}: exists already; remove it to make it again")
    with _staging(run.directory) as staging:
        staged, recorded = staging / final.name, staging / "recorded"
        written = artifact.write(source, reference.probes[:FEW], staged)
        entries = listed(staged, files_in(staged))  # before the comparison: the seal holds the bytes that are compared
        Recording(reference.probes, reference.tuned, written).save(recorded)
        reopened = reader.compare(artifact.name, staged, run.auto_model, recorded)
        proof = Proof.of(source.evidence, reference, reopened.to_tuned)
        _refuse_beyond_bounds(final.name, proof, reopened, force)
        (staged / "README.md").write_text(model_card(run, proof, forced=force), encoding="utf-8")
        write_json(staged / run.directory.parity.name, proof.as_dict())
        entries |= listed(staged, ["README.md", run.directory.parity.name])
        about = {"kind": final.name, MADE_FROM: sources_of(run.directory, final), "parity": proof.as_dict()}
        write_seal(staged, entries, about)
        final.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(staged, final)
    return proof


def _refuse_beyond_bounds(name: str, proof: Proof, reopened: Reopened, force: bool) -> None:
    """Print the figures of a reopened artifact, and raise ArtifactRefused for those beyond their bounds."""
    where = f"{proof.saved_as} and reopened"
    say(f"{where}: {proof.rounded}")
    say(f"rounding: {cost_as_text(proof)}")
    refuse_other_tensors(name, reopened.other_tensors)
    if not force:
        refuse_another_function(name, where, reopened.to_written, proof.noise, None)
        refuse_lost_update(name, proof)


@contextmanager
def _staging(run: RunDirectory) -> Iterator[Path]:
    """Give an empty folder to build in. It is removed at the end, as is one that a killed process left."""
    refuse_links(run)
    with run.locked():
        shutil.rmtree(run.merging, ignore_errors=True)
        run.merging.mkdir()
        try:
            yield run.merging
        finally:
            shutil.rmtree(run.merging, ignore_errors=True)
