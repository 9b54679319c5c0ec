"""Reads YAML with the line of every value. Refuses tags, aliases, duplicate keys and huge files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gremlins.errors import ConfigError
from gremlins.files import read_file

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 40

_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))


@dataclass(frozen=True)
class Node:
    """A value of a document with its line. `value`: a scalar, a tuple of nodes, or a dict of nodes."""

    value: Any
    line: int
    text: str = ""
    """A scalar as written."""
    key_lines: Mapping[str, int] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value without lines; lists are tuples."""
        match self.value:
            case tuple():
                return tuple(item.plain() for item in self.value)
            case dict():
                return {key: item.plain() for key, item in self.value.items()}
            case _:
                return self.value

    def line_of(self, path: Iterable[object]) -> int:
        """The line of the value at a path of keys and indexes, or of its nearest existing parent."""
        node, line = self, self.line
        for step in path:
            match node.value:
                case dict() if step in node.value:
                    line, node = node.key_lines[str(step)], node.value[step]
                case tuple() if isinstance(step, int) and step < len(node.value):
                    node = node.value[step]
                    line = node.line
                case _:
                    break
        return line


def read_yaml(file: Path) -> Node:
    """Read the document of a file. Raises ConfigError with file and line."""
    try:
        raw = read_file(file, MAX_BYTES)
        text = raw.decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", file=file, line=raw.count(b"\n", 0, error.start) + 1) from None
    return _parse(text, file)


def _parse(text: str, file: Path) -> Node:
    import yaml  # 30 ms

    try:
        _refuse_unusual(yaml.parse(text, Loader=yaml.SafeLoader), file)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.problem, error.context) if part)
        raise ConfigError(f"not YAML: {what}", file=file, line=mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"not YAML: {error.reason}", file=file, line=line) from None
    if root is None:
        raise ConfigError("is empty", file=file, line=1)
    return _node(root, file)


def _refuse_unusual(events: Iterable[yaml.Event], file: Path) -> None:
    """Raise ConfigError for aliases (exponential growth), tags and deep nesting, before any node is built."""
    import yaml

    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError("aliases (`*name`) are not taken here; write it out", file=file, line=line)
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            raise ConfigError("tags (`!name`) are not taken here", file=file, line=line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError("is nested too deeply", file=file, line=line)


def _node(node: yaml.Node, file: Path) -> Node:
    import yaml

    line = node.start_mark.line + 1
    match node:
        case yaml.SequenceNode():
            return Node(tuple(_node(item, file) for item in node.value), line)
        case yaml.MappingNode():
            return _mapping(node, file, line)
        case _:
            return Node(_scalar(node, file, line), line, text=str(node.value))


def _mapping(node: yaml.MappingNode, file: Path, line: int) -> Node:
    import yaml

    values: dict[str, Node] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError("a key has to be a word", file=file, line=at)
        name = str(key.value)
        if name in values:
            raise ConfigError(f"`{name}` stands here twice, first in line {lines[name]}", file=file, line=at)
        values[name], lines[name] = _node(value, file), at
    return Node(values, line, key_lines=lines)


def _scalar(node: yaml.Node, file: Path, line: int) -> Any:
    """Numbers, booleans and null as such; everything else, including dates, as text."""
    if node.tag not in _PLAIN:
        return str(node.value)
    from yaml.constructor import SafeConstructor

    try:
        return SafeConstructor().construct_object(node)
    except ValueError:
        raise ConfigError(f"`{node.value}` is not a value", file=file, line=line) from None
