"""Batches as one self-contained HTML page without scripts."""

from collections.abc import Iterator, Sequence
from html import escape

from eyas.data.preview.batch import Batch, BatchRow, Document, Kind, Piece
from eyas.data.preview.token_text import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60676e; --paper: #fbfbf9; --card: #fff; --line: #d9dcdf;
  --read: #f0f1f2; --read2: #e5e7e9; --trained: #bfeac8; --trained2: #a3dfb0; --trained-ink: #0b3d18; --warn: #9a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9aa2aa; --paper: #15181b; --card: #1c2024; --line: #343a40; --read: #272c31;
    --read2: #31373d; --trained: #1d5a30; --trained2: #26713d; --trained-ink: #e3fbe8; --warn: #f0ad60; } }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0.2rem 0 0.8rem; } h2 { font-size: 1rem; margin: 2rem 0 0.6rem; }
pre { overflow-x: auto; margin: 0.5rem 0 0; font-size: 12px; }
details, article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 0.6rem 0.8rem; }
article { margin: 0.6rem 0; } summary { cursor: pointer; }
h3 { font-size: 0.85rem; margin: 0 0 0.4rem; overflow-wrap: anywhere; }
.document + .document { margin-top: 0.6rem; border-top: 1px dashed var(--soft); padding-top: 0.5rem; }
.from { color: var(--soft); font-size: 0.8rem; margin-bottom: 0.2rem; overflow-wrap: anywhere; }
.cut { color: var(--warn); font-weight: 600; }
.tokens { margin: 0; font: 13px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens span, .legend span { border-radius: 3px; padding: 2px 0; }
.legend span { padding: 2px 6px; }
.legend { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: 0.3rem 0.5rem; font-size: 0.85rem;
  background: var(--paper); padding: 0.5rem 0; margin: 0; border-bottom: 1px solid var(--line); }
.masked { background: var(--read); } .masked:nth-child(even) { background: var(--read2); }
.trained { background: var(--trained); color: var(--trained-ink); }
.trained:nth-child(even) { background: var(--trained2); }
.padding { color: var(--soft); font-style: italic; border: 1px dashed var(--line); }
.tokens .padding { padding: 1px 4px; margin-left: 4px; white-space: nowrap; }
.tokens span:hover { outline: 2px solid var(--soft); }
"""


def page(name: str, report: str, batches: Sequence[Batch]) -> str:
    """Return the HTML page of a recipe's batches, with the report on its rows first."""
    title = f"{escape(name)}: what the trainer gets"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # The rows may come from anyone: the policy makes a browser run nothing and fetch nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{title}</h1>",
        f"<details open><summary>The rows</summary><pre>{escape(report)}</pre></details>",
        _legend(batches),
    ]
    for number, batch in enumerate(batches, 1):
        parts.append(f"<section>\n<h2>{escape(batch.headline(number))}</h2>")
        parts += [_row(row, row_number) for row_number, row in enumerate(batch.rows, 1)]
        parts.append("</section>")
    return "\n".join([*parts, "</body>\n</html>\n"])


def _legend(batches: Sequence[Batch]) -> str:
    classes = bool(batches[0].classes)
    words: dict[Kind, str] = {"trained": "trained", "masked": "read" if classes else "masked", "padding": "padding"}
    counts = {kind: sum(batch.count(kind) for batch in batches) for kind in words}
    shown = [kind for kind in words if counts[kind] or (kind == "trained" and not classes)]
    spans = [f'<span class="{kind}">{counts[kind]:,} {words[kind]}</span>' for kind in shown]
    return f'<p class="legend">{" ".join(spans)} <span>↵ line end</span></p>'


def _row(row: BatchRow, number: int) -> str:
    several = len(row.documents) > 1
    documents = "\n".join(_document(document, several) for document in row.documents)
    return f"<article>\n<h3>{_with_cut(row.headline(number))}</h3>\n{documents}\n</article>"


def _document(document: Document, one_of_several: bool) -> str:
    origin = f'<div class="from">{_with_cut(document.headline)}</div>' if one_of_several else ""
    return f'<div class="document">{origin}<p class="tokens">{"".join(_pieces(document))}</p></div>'


def _with_cut(headline: str) -> str:
    before, cut, tokens = escape(headline).rpartition(" · cut: ")
    return f'{before} · <span class="cut">cut: {tokens}</span>' if cut else tokens


def _pieces(document: Document) -> Iterator[str]:
    for piece in document.pieces():
        yield f'<span class="{piece.kind}" title="{_title(piece)}">{escape(visible(piece.text))}</span>'


def _title(piece: Piece) -> str:
    first, last = piece.tokens[0], piece.tokens[-1]
    if piece.kind == "padding":
        return f"positions {first.position} to {last.position}: id {first.id}"
    lines = [f"position {token.position}: id {token.id}{_label(token.label)}" for token in piece.tokens]
    return "&#10;".join(lines)


def _label(label: int | None) -> str:
    return "" if label is None else f", label {label}"
