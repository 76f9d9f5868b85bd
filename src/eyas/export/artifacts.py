"""Table of artifacts, in which a fresh process finds them by name."""

from eyas.export.artifact import Artifact
from eyas.export.merged_model import MERGED

ARTIFACTS: dict[str, Artifact] = {MERGED.name: MERGED}
