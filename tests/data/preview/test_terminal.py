"""Batches on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from eyas.data.preview.batch import Batch, BatchRow, Document, Kind, Token
from eyas.data.preview.terminal import print_batches
from eyas.data.rows import Place


def tokens(*spelt: tuple[Kind, str]):
    return [Token(position, 7, 7, text, kind) for position, (kind, text) in enumerate(spelt)]


ANSWERED = Document(
    tokens(("masked", "[red]ask\x1b[31m"), ("masked", "\n"), ("trained", "an"), ("trained", "swer"), ("padding", "")),
    [Place("x.jsonl", 3)],
    4,
)
PACKED = BatchRow([Document(ANSWERED.tokens[:3], [Place("x.jsonl", 4)], 8), ANSWERED], None)


def printed(batch, **options):
    file = io.StringIO()
    print_batches([batch], Console(file=file, **options))
    return file.getvalue()


def test_without_colors_the_trained_text_is_between_marks():
    text = printed(Batch([BatchRow([ANSWERED], None)]))

    assert (
        "row 1 · x.jsonl:3 · 2 of 4 tokens trained · 1 padding\n[red]ask<U+001B>[31m↵\n⟦answer⟧ ⋯ 1 padding\n" in text
    )
    assert "\x1b" not in text


def test_no_line_is_wrapped_without_a_terminal():
    long = Document(tokens(*[("masked", "word ")] * 100), [], None)

    assert "word " * 100 in printed(Batch([BatchRow([long], None)]), width=40)


def test_row_of_several_documents_shows_the_place_of_each():
    text = printed(Batch([PACKED]))

    assert "row 1 · 2 documents · 3 of 7 tokens trained" in text
    assert "┄┄ x.jsonl:4 · 1 of 3 tokens trained · cut: 5 of 8 tokens lost" in text
    assert "┄┄ x.jsonl:3 · 2 of 4 tokens trained" in text


def test_each_token_has_another_shade_than_the_one_before():
    text = printed(Batch([BatchRow([ANSWERED], None)]), force_terminal=True, color_system="truecolor", no_color=False)

    assert "\x1b[38;2;0;0;0;48;2;135;215;135man" in text and "\x1b[38;2;0;0;0;48;2;175;255;175mswer" in text
    assert "⟦" not in text and "\x1b[31m" not in text


@pytest.mark.parametrize("width", [30, 80])
def test_lines_fit_the_width_of_the_terminal(width):
    long = Document(tokens(*[("masked", "word "), ("trained", "x" * 7)] * 50), [], None)
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, color_system="truecolor", no_color=False, width=width, record=True
    )

    print_batches([Batch([BatchRow([long], None)])], console)

    lines = [line for line in console.export_text().splitlines() if line.startswith("  ")]
    assert len(lines) > 5 and max(map(len, lines)) <= width


def test_no_color_is_respected_on_a_terminal():
    text = printed(Batch([BatchRow([ANSWERED], None)]), force_terminal=True, color_system="truecolor", no_color=True)

    assert "⟦answer⟧" in text and "48;2" not in text


def test_sixteen_colors_distinguish_the_kinds():
    options = {"force_terminal": True, "no_color": False}
    sixteen = printed(Batch([BatchRow([ANSWERED], None)]), color_system="standard", **options)

    assert "\x1b[30;42man\x1b[0m\x1b[30;102mswer" in sixteen  # black on two greens
    assert "\x1b[30;42m" not in printed(Batch([BatchRow([ANSWERED], None)]), color_system="truecolor", **options)
