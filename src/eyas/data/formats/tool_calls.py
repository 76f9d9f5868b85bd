"""Tools and tool calls of a chat. Arguments are objects, else the layout is OpenAI's."""

from eyas.data.formats.fields import (
    Cells,
    Item,
    each,
    needed,
    nonblank_text,
    others,
    parsed,
    refuse_unencodable,
    unexpected,
)
from eyas.data.rows import RowError


def tools_column(chat: str | list[Item], cells: Cells) -> dict[str, list[Item]]:
    """Return the column of tools that a chat may call, from a list or its JSON text. No column if there are none.

    Raises RowError for tools of plain text, which uses no chat template.
    """
    value, name = cells.optional("tools"), cells.column("tools")
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    tools = parsed(value, name)
    if tools != [] and isinstance(chat, str):
        raise RowError(f"`{name}` needs a chat, and the prompt is text; write it as messages")
    return {"tools": each(tools, name, "tool", read_tool)} if tools != [] else {}


def read_call(call: Item) -> Item:
    """Return a tool call with its arguments as an object: OpenAI sends JSON text, but templates expect objects."""
    call = read_tool(call)
    function = call["function"]
    arguments = parsed(needed(function, "arguments"), "arguments")
    if not isinstance(arguments, dict):
        raise unexpected(arguments, "arguments", "an object")
    refuse_unencodable(arguments, "arguments")
    return call | {"function": function | {"arguments": arguments}}


def read_tool(item: Item) -> Item:
    """Return a tool or a call under the key `function`, as OpenAI has it. ShareGPT files omit that level."""
    if item.get("function") is None:
        outside = ("id", "type", "function")
        inside = {key: value for key, value in item.items() if key not in outside}
        item = {key: item[key] for key in outside if key in item} | {"function": inside}
    if not isinstance(item["function"], dict):
        raise unexpected(item["function"], "function", "an object")
    nonblank_text(needed(item["function"], "name"), "name")
    return {"type": "function"} | others(item, ())
