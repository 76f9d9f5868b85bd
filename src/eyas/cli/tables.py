"""Tables on a terminal."""

from collections.abc import Sequence


def print_table(title: str, lines: Sequence[Sequence[str]]) -> None:
    """Print a table; the first line is its header."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for position, heading in enumerate(lines[0]):
        table.add_column(heading, justify="left" if position == 0 else "right", no_wrap=True)
    for line in lines[1:]:
        table.add_row(*line)
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)
