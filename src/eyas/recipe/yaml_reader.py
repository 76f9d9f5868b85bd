"""A YAML reader that keeps the line and column of every key.

Scalars follow the YAML 1.2 core schema (`2e-4` is a number, `no` is a word). Tags, anchors and aliases are refused, so
a file constructs no objects and does not expand. Depth is limited before Python's stack is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

LARGEST_BYTES = 256 * 1024
TOO_LARGE = f"a recipe of more than {LARGEST_BYTES // 1024} KiB; is this the right file?"
DEEPEST_LEVEL = 20
MOST_PROBLEMS = 100
"""Problems after which a file is read no further."""

Path = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, counted from 1."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass
class Document:
    """A parsed file: its value, positions and problems."""

    value: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    problems: list[tuple[Position, str]] = field(default_factory=list)


def read_yaml(text: str) -> Document:
    """Return the document of a text; invalid YAML has one problem and no value."""
    document = Document()
    if len(text.encode()) > LARGEST_BYTES:
        document.problems.append(((1, 1), TOO_LARGE))
        return document
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        place = (
            text.count("\n", 0, unprintable.start()) + 1,
            unprintable.start() - text.rfind("\n", 0, unprintable.start()),
        )
        document.problems.append((place, f"control character U+{ord(unprintable[0]):04X}; remove it"))
        return document
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = yaml.parse(text, Loader=loader)
        document.value = _read_documents(events, document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append(((mark.line + 1, mark.column + 1) if mark else (1, 1), f"not YAML: {error.problem}"))
    except (yaml.YAMLError, _TooDeep) as error:
        document.problems.append(((1, 1), str(error).splitlines()[0]))
    except _TooMany:
        pass
    return document


def read_scalar(text: str) -> Any:
    """Return the value of a plain scalar."""
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _TooDeep(Exception):
    pass


class _TooMany(Exception):
    pass


def _read_documents(events: Iterator[Any], document: Document) -> Any:
    value, count = None, 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            count += 1
            if count > 1:
                document.problems.append((_position(event), "a second document; a recipe has one"))
                return value
        elif isinstance(event, yaml.NodeEvent):
            value = _read_node(event, events, (), document)
    return value


def _read_node(event: Any, events: Iterator[Any], path: Path, document: Document) -> Any:
    here = _position(event)
    document.values[path] = here
    if len(document.problems) >= MOST_PROBLEMS:
        raise _TooMany
    if len(path) > DEEPEST_LEVEL:
        raise _TooDeep(f"nested deeper than {DEEPEST_LEVEL} levels at line {here[0]}; is this a recipe?")
    if isinstance(event, yaml.AliasEvent):
        document.problems.append((here, f"alias *{event.anchor}: a recipe holds plain values; write it out"))
        return None
    _refuse_marks(event, document)
    if isinstance(event, yaml.ScalarEvent):
        return read_scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        return _read_sequence(events, path, document)
    return _read_mapping(events, path, document)


def _refuse_marks(event: Any, document: Document) -> None:
    if event.anchor is not None:
        problem = f"anchor &{event.anchor}: a recipe holds plain values; remove it"
        document.problems.append((_position(event), problem))
    if event.tag is not None:
        document.problems.append((_position(event), f"tag {event.tag}: a recipe holds plain values; remove it"))


def _read_sequence(events: Iterator[Any], path: Path, document: Document) -> list[Any]:
    items: list[Any] = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        items.append(_read_node(event, events, (*path, len(items)), document))
    return items


def _read_mapping(events: Iterator[Any], path: Path, document: Document) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if isinstance(event, yaml.ScalarEvent):
            key = event.value
            _refuse_marks(event, document)
        else:
            document.problems.append((_position(event), "a key must be text"))
            key = repr(_read_node(event, events, (*path, "?"), document))
        here = (*path, key)
        if key in mapping:
            line = document.keys[here][0]
            name = ".".join(map(str, here))
            document.problems.append((_position(event), f"{name}: set twice; first on line {line}, remove one"))
        document.keys[here] = _position(event)
        mapping[key] = _read_node(next(events), events, here, document)
    return mapping


def _position(event: yaml.Event) -> Position:
    assert event.start_mark is not None
    return event.start_mark.line + 1, event.start_mark.column + 1
