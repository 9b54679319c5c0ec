"""A file's definitions, their bounds, and its imports, by tree-sitter; by patterns where there is no grammar.

Grammars are packages of their own, loaded when the first file of their language is looked at.
"""

from __future__ import annotations

import importlib
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

MOST_SECONDS = 2.0
"""Processor time for one file. The largest real ones take a fifth of it; some texts that are no programs take hours."""


@dataclass(frozen=True)
class Definition:
    """A named piece of a file: lines `first` to `last`, counted from 1. `at` is the line that holds the name.

    `first` includes decorators, attributes and the comment right above.
    """

    name: str
    first: int
    at: int
    last: int


@dataclass(frozen=True)
class Import:
    """A module as an import names it: `a.b`, `../c`, `crate::d`; and the names that are taken from it."""

    module: str
    names: tuple[str, ...] = ()
    quoted: bool = False


@dataclass(frozen=True)
class Syntax:
    """The definitions of a file in the order of their names' lines, and its imports."""

    definitions: Sequence[Definition]
    imports: Sequence[Import]
    parsed: bool = True
    """False if there was no grammar for it."""
    comments: Sequence[tuple[int, int]] = ()
    """The first and last line of each comment that has lines of its own; those that follow one another are one."""


def lines_of(text: str) -> list[str]:
    """The lines with their ends. Only `\\n` ends one, as in git and in every compiler."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def read_syntax(path: str, text: str, *, cpu: Callable[[], float] = time.process_time) -> Syntax:
    """The syntax of a file. A text that its grammar cannot read in time is read by patterns."""
    lines = lines_of(text)
    grammar = _grammar_for(path, text)
    loaded = _load(grammar) if grammar else None
    if grammar in ("c", "cpp"):
        text = _MACRO.sub(lambda found: " " * len(found[0]), text)
    found = _parse(loaded, text, lines, cpu) if loaded else None
    if found is None:
        return Syntax(_by_patterns(lines, ()), (), parsed=False)
    return found


# --- grammars


@dataclass(frozen=True)
class _Grammar:
    """The place of a grammar, and its kinds of node."""

    module: str
    definitions: str
    imports: str
    function: str = "language"


_C_KINDS = (
    "function_definition struct_specifier enum_specifier union_specifier type_definition preproc_def"
    " preproc_function_def declaration"
)
_GRAMMARS: Mapping[str, _Grammar] = {
    "python": _Grammar(
        "tree_sitter_python",
        "function_definition class_definition assignment",
        "import_statement import_from_statement",
    ),
    "typescript": _Grammar(
        "tree_sitter_typescript",
        "function_declaration generator_function_declaration class_declaration abstract_class_declaration"
        " method_definition interface_declaration type_alias_declaration enum_declaration internal_module module"
        " variable_declarator public_field_definition pair assignment_expression function_signature"
        " abstract_method_signature method_signature",
        "import_statement export_statement call_expression",
        "language_typescript",
    ),
    "go": _Grammar(
        "tree_sitter_go",
        "function_declaration method_declaration type_spec type_alias const_spec var_spec method_elem",
        "import_spec",
    ),
    "rust": _Grammar(
        "tree_sitter_rust",
        "function_item function_signature_item struct_item enum_item union_item trait_item impl_item mod_item"
        " macro_definition const_item static_item type_item",
        "use_declaration mod_item",
    ),
    "java": _Grammar(
        "tree_sitter_java",
        "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration"
        " method_declaration constructor_declaration compact_constructor_declaration field_declaration",
        "import_declaration",
    ),
    "c": _Grammar("tree_sitter_c", _C_KINDS, "preproc_include"),
    "cpp": _Grammar(
        "tree_sitter_cpp",
        f"{_C_KINDS} class_specifier namespace_definition alias_declaration concept_definition field_declaration",
        "preproc_include",
    ),
    "c_sharp": _Grammar(
        "tree_sitter_c_sharp",
        "class_declaration interface_declaration struct_declaration enum_declaration record_declaration"
        " method_declaration constructor_declaration destructor_declaration property_declaration indexer_declaration"
        " operator_declaration delegate_declaration event_declaration local_function_statement namespace_declaration"
        " file_scoped_namespace_declaration",
        "using_directive",
    ),
    "kotlin": _Grammar(
        "tree_sitter_kotlin",
        "function_declaration class_declaration object_declaration property_declaration type_alias companion_object"
        " secondary_constructor",
        "import",
    ),
    "ruby": _Grammar("tree_sitter_ruby", "method singleton_method class module assignment", "call"),
    "php": _Grammar(
        "tree_sitter_php",
        "function_definition method_declaration class_declaration interface_declaration trait_declaration"
        " enum_declaration const_element",
        "namespace_use_clause require_expression require_once_expression include_expression include_once_expression",
        "language_php",
    ),
    "swift": _Grammar(
        "tree_sitter_swift",
        "function_declaration class_declaration protocol_declaration property_declaration init_declaration"
        " deinit_declaration typealias_declaration subscript_declaration protocol_function_declaration",
        "import_declaration",
    ),
}  # fmt: skip
_SUFFIXES: Mapping[str, str] = {
    suffix: name
    for name, suffixes in {
        "python": "py pyi pyw",
        "typescript": "ts mts cts",
        "tsx": "tsx js jsx mjs cjs",
        "go": "go",
        "rust": "rs",
        "java": "java",
        "c": "c",
        "cpp": "cc cpp cxx c++ hpp hh hxx h++ ipp tpp inl cu cuh ino",
        "header": "h",
        "c_sharp": "cs",
        "kotlin": "kt kts",
        "ruby": "rb rake gemspec",
        "php": "php phtml",
        "swift": "swift",
    }.items()
    for suffix in suffixes.split()
}
_MACRO = re.compile(
    r"^[ \t]*[A-Z][A-Z0-9_]{2,100}(?:\((?:[^()\n]|\([^()\n]{0,200}\)){0,300}\))?[ \t]*$(?!\n[ \t]*\{)", re.MULTILINE
)
"""A line that holds a macro and no body. A grammar of C knows no macros, and loses its way for a class or for ever."""
_OF_CPP = re.compile(r"^[ \t]*(?:class|namespace|template|using|public:|private:)\b|std::", re.MULTILINE)


def _grammar_for(path: str, text: str) -> str | None:
    name = _SUFFIXES.get(path.rpartition(".")[2].lower())
    if name == "header":
        return "cpp" if _OF_CPP.search(text) else "c"
    return name


@dataclass(frozen=True)
class _Loaded:
    """A grammar in memory, and its kinds of node by number."""

    language: Any
    definitions: frozenset[int]
    imports: frozenset[int]
    comments: frozenset[int]


@cache
def _load(name: str) -> _Loaded | None:
    """A grammar; None if its package is not installed."""
    grammar = _GRAMMARS["typescript" if name == "tsx" else name]
    try:
        tree_sitter = importlib.import_module("tree_sitter")
        module = importlib.import_module(grammar.module)
    except ImportError:
        return None
    function = "language_tsx" if name == "tsx" else grammar.function
    language = tree_sitter.Language(getattr(module, function)())
    kinds = (grammar.definitions, grammar.imports, "comment line_comment block_comment multiline_comment")
    return _Loaded(language, *(_kinds(language, names) for names in kinds))


def _kinds(language: Any, names: str) -> frozenset[int]:
    """The numbers of kinds of node; a release of a grammar may lack one that another has."""
    return frozenset(found for name in names.split() if (found := language.id_for_node_kind(name, True)) is not None)


def _parse(loaded: _Loaded, text: str, lines: Sequence[str], cpu: Callable[[], float]) -> Syntax | None:
    tree_sitter = importlib.import_module("tree_sitter")
    source = text.encode(errors="replace")
    end = cpu() + MOST_SECONDS
    try:
        tree = tree_sitter.Parser(loaded.language).parse(
            lambda offset, _: source[offset : offset + 65_536],
            progress_callback=lambda _offset, _error: cpu() > end,
        )
    except ValueError:  # the callback ended it
        return None
    definitions: list[Definition] = []
    imports: list[Import] = []
    comments: list[tuple[int, int]] = []
    for node, above in _walk(tree.root_node):
        kind = node.kind_id
        if kind in loaded.definitions and (definition := _definition(node, above, source, lines)) is not None:
            definitions.append(definition)
        if kind in loaded.comments:
            _add_comment(comments, node, lines)
        if kind in loaded.imports:
            imports.extend(_imports(node, source))
    if tree.root_node.has_error:  # what the grammar did not understand may hide a definition
        definitions += _by_patterns(lines, definitions, _KEYWORD)
    leads = {last + 1: first for first, last in comments if last - first <= LONGEST_LEAD}
    definitions = [replace(one, first=leads.get(one.first, one.first)) for one in definitions]
    return Syntax(sorted(definitions, key=lambda one: (one.at, -one.last, one.name)), imports, comments=comments)


def _add_comment(comments: list[tuple[int, int]], node: Any, lines: Sequence[str]) -> None:
    first, last = node.start_point.row + 1, node.end_point.row + (node.end_point.column > 0)
    if lines[first - 1][: node.start_point.column].strip():
        return
    if comments and comments[-1][1] == first - 1:
        first = comments.pop()[0]
    comments.append((first, max(first, last)))


def _walk(root: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Every node with the nodes above it, innermost last, in the order of the text. Not by a query, nor by `parent`:
    both are quadratic where a node has many children.
    """
    cursor = root.walk()
    above: list[Any] = []
    while True:
        node = cursor.node
        yield node, above
        if cursor.goto_first_child():
            above.append(node)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            above.pop()


# --- nodes


def _kinds_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WRAPPERS = _kinds_in(
    "decorated_definition export_statement template_declaration lexical_declaration variable_declaration"
    " ambient_declaration type_declaration const_declaration var_declaration expression_statement"
)
_NEEDS_BODY = _kinds_in("struct_specifier enum_specifier union_specifier class_specifier")
_FUNCTIONS = _kinds_in("arrow_function function_expression generator_function class object call_expression function")
_ONLY_AT_THE_TOP = _kinds_in(
    "assignment declaration field_declaration variable_declarator var_spec const_spec property_declaration"
)
_BODIES = _kinds_in("block compound_statement statement_block function_body body_statement statements constructor_body")
_CONTAINERS = _kinds_in("class_definition class class_declaration module internal_module program class_body")
_BRANCHES = _kinds_in("if_statement else_clause elif_clause try_statement except_clause with_statement")


def _definition(node: Any, above: Sequence[Any], source: bytes, lines: Sequence[str]) -> Definition | None:
    if not _counts(node, above):
        return None
    named = _name_node(node)
    if named is None:
        return None
    name = _text(named, source)
    outer = node
    for parent in reversed(above):
        if parent.type not in _WRAPPERS or parent.named_child_count > 2:
            break
        outer = parent
    first, last = outer.start_point.row + 1, outer.end_point.row + 1
    if outer.end_point.column == 0 and last > first:  # the end of the last line is the start of the next
        last -= 1
    return Definition(name, _with_lead(lines, first), named.start_point.row + 1, last)


def _counts(node: Any, above: Sequence[Any]) -> bool:
    """True for what a reader would call a definition: no local variable, no mere mention of a type."""
    kind = node.type
    if kind in _NEEDS_BODY:
        return node.child_by_field_name("body") is not None
    if kind in ("pair", "public_field_definition", "assignment_expression"):
        value = node.child_by_field_name("right" if kind == "assignment_expression" else "value")
        return value is not None and value.type in _FUNCTIONS and value.type not in ("object", "call_expression")
    if kind in _ONLY_AT_THE_TOP:
        value = node.child_by_field_name("value")
        return not _is_local(above) or (value is not None and value.type in ("arrow_function", "function_expression"))
    return True


def _is_local(above: Sequence[Any]) -> bool:
    """True inside a function's body."""
    for number in range(len(above) - 1, 0, -1):
        if above[number].type in _BODIES:
            owner = above[number - 1].type
            if owner in _BRANCHES:
                continue
            return owner not in _CONTAINERS
    return False


def _name_node(node: Any) -> Any:
    """The node of a definition's name: found through declarators, fields and patterns."""
    kind = node.type
    if kind == "impl_item":
        named = node.child_by_field_name("type")
        return named.child_by_field_name("type") or named if named is not None else None
    if kind in ("init_declaration", "deinit_declaration", "subscript_declaration", "companion_object"):
        return node.child_by_field_name("name") if kind == "companion_object" else node.children[0]
    found = next((got for field in _NAME_FIELDS if (got := node.child_by_field_name(field)) is not None), None)
    if found is None:
        found = next((child for child in node.named_children if child.type in _NAME_CHILDREN), None)
    return _innermost(found)


def _innermost(found: Any) -> Any:
    """The identifier at the end of declarators, qualifications and patterns."""
    for _ in range(30):
        if found is None or found.type in ("identifier", "type_identifier", "field_identifier", "constant"):
            return found
        inner = next((got for field in _INNER_FIELDS if (got := found.child_by_field_name(field)) is not None), None)
        if inner is None and found.type in ("parenthesized_declarator", "reference_declarator", "variable_declaration",
                                            "qualified_identifier", "variable_name"):  # fmt: skip
            inner = next(iter(found.named_children), None)
        if inner is None:
            return found if found.end_byte - found.start_byte <= 100 else None
        found = inner
    return None


_NAME_FIELDS = ("name", "declarator", "left", "key")
_INNER_FIELDS = ("declarator", "name", "property", "bound_identifier")
_NAME_CHILDREN = _kinds_in(
    "identifier name variable_declaration simple_identifier type_identifier constant field_identifier"
)


def _with_lead(lines: Sequence[str], first: int) -> int:
    """The first line of a definition with the comments, decorators and attributes right above it."""
    start = first
    while start > 1 and first - start < LONGEST_LEAD and _LEADS.match(lines[start - 2]):
        start -= 1
    return start


LONGEST_LEAD = 60
_LEADS = re.compile(r"[ \t]*(?://|/\*|\*|@\w|#\[|#:|# |\[\w+)")


def _text(node: Any, source: bytes) -> str:
    """A node's text. `node.text` would read the source again from its start."""
    return source[node.start_byte : node.end_byte].decode(errors="replace")


def _imports(node: Any, source: bytes) -> Iterator[Import]:
    """The imports of one statement."""
    match node.type:
        case "import_statement" if node.child_by_field_name("source") is None:
            for name in node.children_by_field_name("name"):
                yield Import(_text(name.child_by_field_name("name") or name, source))
        case "import_from_statement":
            names = [
                _text(name.child_by_field_name("name") or name, source) for name in node.children_by_field_name("name")
            ]
            yield Import(_text(node.child_by_field_name("module_name"), source), tuple(names))
        case "import_statement" | "export_statement" | "import_spec" | "preproc_include":
            quoted = node.child_by_field_name("source") or node.child_by_field_name("path")
            if quoted is not None:
                yield Import(_text(quoted, source).strip("'\"`<>"), quoted=True)
        case "call_expression" | "call":
            yield from _called_import(node, source)
        case "use_declaration":
            yield from (Import(path) for path in _rust_paths(_text(node.child_by_field_name("argument"), source)))
        case "mod_item":
            if node.child_by_field_name("body") is None:
                yield Import(_text(node.child_by_field_name("name"), source))
        case kind if kind.endswith("_expression"):
            for found in re.findall(r"""['"]([^'"\n]{1,300})['"]""", _text(node, source)[:1000]):
                yield Import(found.lstrip("/"), quoted=True)
        case _:
            words = re.findall(r"[\w.\\]{1,300}", _text(node, source)[:1000])
            dotted = [word for word in words if word not in ("import", "static", "using", "global", "testable", "as")]
            yield from (Import(word.strip("\\.").replace("\\", ".")) for word in dotted[:1])


def _called_import(node: Any, source: bytes) -> Iterator[Import]:
    """`require('x')`, `import('x')`, `require_relative "x"`."""
    called = node.child_by_field_name("function") or node.child_by_field_name("method")
    given = node.child_by_field_name("arguments")
    if (
        called is None
        or given is None
        or _text(called, source) not in ("require", "import", "require_relative", "load")
    ):
        return
    first = next(iter(given.named_children), None)
    if first is not None and first.type == "string":
        quoted = _text(first, source).strip("'\"`")
        yield Import(f"./{quoted}" if _text(called, source) == "require_relative" else quoted, quoted=True)


def _rust_paths(text: str) -> list[str]:
    """`crate::a::{b, c::d}` → crate::a::b, crate::a::c::d. One level of braces; deeper ones name their beginning."""
    base, brace, rest = text.partition("{")
    if not brace:
        return [text.split(" as ")[0].strip()]
    tails = [part.split(" as ")[0].strip() for part in re.split(r"[{},]", rest)]
    return [f"{base.strip()}{tail}" for tail in tails if tail and tail != "self"] or [base.strip().rstrip(":")]


# --- patterns, where there is no grammar

_KEYWORD = re.compile(
    r"^[ \t]*(?:[a-z]+(?:\([\w ]{0,40}\))?[ \t]+){0,4}?"
    r"(?:def|enum[ \t]+class|class|function\*?|func|fun|fn|struct|enum|interface|trait|type|module|macro_rules!|sub"
    r"|protocol|object|\#define)"
    r"[ \t]+(?:\([^)\n]{0,80}\)[ \t]*|self\.|[A-Z]\w{0,80}\.)?(?P<named>[A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
_ANY = re.compile(
    rf"(?:{_KEYWORD.pattern})"
    r"|^[ \t]*(?:[a-z]+[ \t]+){0,4}?(?:const|let|var|val)[ \t]+(?P<bound>[A-Za-z_$][\w$]*)"
    r"|^[ \t]*(?P<assigned>[A-Za-z_$][\w$]*)[ \t]*(?::[^\n=]{1,200})?=(?!=)",
    re.MULTILINE,
)


def _by_patterns(
    lines: Sequence[str], known: Iterable[Definition], pattern: re.Pattern[str] = _ANY
) -> list[Definition]:
    """Definitions by their keywords, each as long as what is indented below it."""
    text = "".join(lines)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    taken = {one.at for one in known}
    found = []
    for match in pattern.finditer(text):
        at = bisect_right(starts, match.end() - 1)
        if at not in taken:
            name = next(value for value in match.groupdict().values() if value)
            found.append(Definition(name, _with_lead(lines, at), at, 0))
    ends = block_ends(lines, [one.at - 1 for one in found])
    return [Definition(one.name, one.first, one.at, ends[one.at - 1]) for one in found]


def block_ends(lines: Sequence[str], starts: Sequence[int]) -> dict[int, int]:
    """The first line (from 0) after each block that begins at one of `starts`: where something is indented no deeper
    than its first line. Closing brackets belong to it, blank lines before what follows do not. One pass for all.
    """
    wanted = set(starts)
    ends: dict[int, int] = {}
    open_: list[tuple[int, int]] = []  # (indentation, start), ever deeper
    last = 0  # the line after the last that is not blank
    for number, line in enumerate(lines):
        body = line.lstrip()
        if not body:
            continue
        indent = len(line) - len(body)
        closes = body.startswith((")", "]", "}"))
        while open_ and (indent < open_[-1][0] or (indent == open_[-1][0] and not closes)):
            ends[open_.pop()[1]] = last
        if number in wanted:
            open_.append((indent, number))
        last = number + 1
    ends.update((start, last) for _, start in open_)
    return ends
