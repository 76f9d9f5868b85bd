"""Every artifact that a run can release, by name; a fresh process finds it here."""

from eyas.export.artifact import Artifact
from eyas.export.merged_model import MERGED

ARTIFACTS: dict[str, Artifact] = {MERGED.name: MERGED}
