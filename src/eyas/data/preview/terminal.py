"""Batches on a terminal, in color or with marks."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from eyas.data.preview.batch import Batch, BatchRow, Document, Kind
from eyas.data.preview.token_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Shades = dict[Kind, tuple[str, str]]
SHADES: Shades = {
    "trained": ("#000000 on #87d787", "#000000 on #afffaf"),
    "masked": ("#d0d0d0 on #3a3a3a", "#d0d0d0 on #4e4e4e"),
    "padding": ("italic #808080", "italic #808080"),
}
"""Two shades of each kind, so that each token ends where the shade changes. Exact with 256 colors."""
SHADES_OF_SIXTEEN: Shades = {
    "trained": ("black on green", "black on bright_green"),
    "masked": ("default", "underline"),
    "padding": ("italic", "italic"),
}
"""Shades for a terminal of sixteen colors, which would show the others all in gray."""
OPEN, CLOSE = "⟦", "⟧"


def print_batches(batches: Sequence[Batch], console: "Console") -> None:
    """Print each batch, its rows and their documents, after a legend. Lines are wrapped on a color terminal only."""
    from rich.padding import Padding

    shades = _shades_of(console)
    for text, indentation in _texts(batches, shades):
        console.print(Padding(text, (0, 0, 0, indentation)) if indentation and shades else text, soft_wrap=not shades)


def _shades_of(console: "Console") -> Shades | None:
    if console.color_system is None or console.no_color:
        return None
    return SHADES_OF_SIXTEEN if console.color_system == "standard" else SHADES


def _texts(batches: Sequence[Batch], shades: Shades | None) -> Iterator[tuple["Text", int]]:
    """Yield each paragraph with its indentation."""
    yield _legend(bool(batches[0].classes), shades), 0
    for number, batch in enumerate(batches, 1):
        yield _headline(f"\n{batch.headline(number)}", "bold reverse"), 0
        for row_number, row in enumerate(batch.rows, 1):
            yield _headline(f"\n{row.headline(row_number)}", "bold"), 0
            yield from _row(row, shades)


def _row(row: BatchRow, shades: Shades | None) -> Iterator[tuple["Text", int]]:
    for document in row.documents:
        if len(row.documents) > 1:
            yield _headline(f"┄┄ {document.headline}", "cyan"), 0
        text = _colored(document, shades) if shades else _marked(document)
        if text.plain.endswith("\n"):
            text.right_crop()
        yield text, 2


def _headline(words: str, style: str) -> "Text":
    from rich.text import Text

    text = Text(words, style)
    text.highlight_regex(r"cut: [^·]+$", "bold yellow")
    return text


def _legend(classes: bool, shades: Shades | None) -> "Text":
    from rich.text import Text

    read = "read (the row's class is trained)" if classes else "masked (read, not trained)"
    if shades is None:
        return Text(f"{'' if classes else f'{OPEN}trained{CLOSE}  '}{read}  ⋯ padding  ↵ line end  ⇥ tab")
    words: dict[Kind, str] = {"masked": read, "padding": "⋯ padding"}
    if not classes:
        words = {"trained": "trained", **words}
    legend = Text()
    for kind, word in words.items():
        legend.append(f" {word} ", shades[kind][0]).append(" ")
    return legend.append("each shade a token, ↵ line end, ⇥ tab", "italic")


def _colored(document: Document, shades: Shades) -> "Text":
    from rich.text import Text

    text = Text(overflow="fold")
    for number, piece in enumerate(document.pieces()):
        text.append(" " if piece.kind == "padding" else "")
        text.append(visible(piece.text), shades[piece.kind][number % 2])
    return text


def _marked(document: Document) -> "Text":
    from rich.text import Text

    return Text("".join(_marked_runs(document)))


def _marked_runs(document: Document) -> Iterator[str]:
    for kind, pieces in groupby(document.pieces(), lambda piece: piece.kind):
        text = visible("".join(piece.text for piece in pieces))
        yield {"trained": f"{OPEN}{text}{CLOSE}", "masked": text, "padding": f" {text}"}[kind]
