"""ComfyUI's core nodes for text."""

from __future__ import annotations

import json
import re
import string as letters
from typing import Any

from ..schema import io
from ..schema.declare import Nodes, choice, integer, switch, text

NODES = Nodes("text")


def _text(name: str = "string", tooltip: str = "The text.") -> io.String.Input:
    return text(name, tooltip=tooltip)


def _case_sensitive() -> io.Boolean.Input:
    return switch("case_sensitive", True, advanced=True, tooltip="Whether A and a differ.")


def _flags(optional: bool = False) -> list[io.Input]:
    tooltips = {
        "case_insensitive": "Whether A and a are the same.",
        "multiline": "Whether ^ and $ match at every line.",
        "dotall": "Whether . matches the ends of lines, too.",
    }
    return [
        switch(name, name == "case_insensitive", advanced=True, optional=optional, tooltip=tooltip)
        for name, tooltip in tooltips.items()
    ]


def _pattern() -> io.String.Input:
    return _text("regex_pattern", "A regular expression, as in Python.")


def _compile(pattern: str, case_insensitive: bool, multiline: bool, dotall: bool) -> re.Pattern[str]:
    flags = re.IGNORECASE * case_insensitive | re.MULTILINE * multiline | re.DOTALL * dotall
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueError(f"regex_pattern {pattern!r} is not a regular expression: {error}") from None


def _is_pattern(regex_pattern: str | None) -> bool:
    """Check a typed-in pattern before anything runs; a linked one is None."""
    if regex_pattern is not None:
        _compile(regex_pattern, False, False, False)
    return True


@NODES(
    "StringConcatenate",
    "Concatenate Text",
    [_text("string_a"), _text("string_b"), io.String.Input("delimiter", default="", tooltip="Put between them.")],
    [io.String],
    search_aliases=[
        "concatenate",
        "text concat",
        "join text",
        "merge text",
        "combine strings",
        "string concat",
        "append text",
        "combine text",
    ],
)
def concatenate(string_a: str, string_b: str, delimiter: str) -> str:
    """Join two texts."""
    return delimiter.join((string_a, string_b))


@NODES(
    "StringSubstring",
    "Substring",
    [
        _text(),
        io.Int.Input("start", tooltip="The first character; below 0 from the end."),
        io.Int.Input("end", tooltip="The character behind the last; below 0 from the end."),
    ],
    [io.String],
    search_aliases=["substring", "extract text", "text portion"],
)
def substring(string: str, start: int, end: int) -> str:
    """Take a part of a text."""
    return string[start:end]


@NODES(
    "StringLength",
    "Text Length",
    [_text()],
    [("length", io.Int)],
    search_aliases=["character count", "text size", "string length"],
)
def length(string: str) -> int:
    """Count the characters of a text."""
    return len(string)


CASES = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
TRIMS = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


@NODES(
    "CaseConverter",
    "Convert Text Case",
    [_text(), choice("mode", list(CASES), tooltip="What the letters become.")],
    [io.String],
    search_aliases=["case converter", "text case", "uppercase", "lowercase", "capitalize"],
)
def convert_case(string: str, mode: str) -> str:
    """Change the case of letters."""
    return CASES[mode](string)


@NODES(
    "StringTrim",
    "Trim Text",
    [_text(), choice("mode", list(TRIMS), tooltip="Which end.")],
    [io.String],
    search_aliases=["trim", "clean whitespace", "remove whitespace", "remove spaces", "strip"],
)
def trim(string: str, mode: str) -> str:
    """Remove white space at the ends of a text."""
    return TRIMS[mode](string)


@NODES(
    "StringReplace",
    "Replace Text",
    [_text(), _text("find", "What is replaced."), _text("replace", "What takes its place.")],
    [io.String],
    search_aliases=["replace", "find and replace", "substitute", "swap text"],
)
def replace_text(string: str, find: str, replace: str) -> str:
    """Replace every occurrence of a text."""
    return string.replace(find, replace)


@NODES(
    "StringContains",
    "Contains Text",
    [_text(), _text("substring", "What is looked for."), _case_sensitive()],
    [("contains", io.Boolean)],
    search_aliases=["contains", "text includes", "string includes"],
)
def contains(string: str, substring: str, case_sensitive: bool) -> bool:
    """Check whether a text contains another."""
    return substring in string if case_sensitive else substring.lower() in string.lower()


COMPARISONS = {"Starts With": str.startswith, "Ends With": str.endswith, "Equal": str.__eq__}


@NODES(
    "StringCompare",
    "Compare Text",
    [
        _text("string_a"),
        _text("string_b"),
        choice("mode", list(COMPARISONS), tooltip="What is asked of the first."),
        _case_sensitive(),
    ],
    [io.Boolean],
    search_aliases=["compare", "text match", "string equals", "starts with", "ends with"],
)
def compare(string_a: str, string_b: str, mode: str, case_sensitive: bool) -> bool:
    """Compare two texts."""
    pair = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
    return COMPARISONS[mode](*pair)


@NODES(
    "RegexMatch",
    "Match Text",
    [_text(), _pattern(), *_flags()],
    [("matches", io.Boolean)],
    validate=_is_pattern,
    search_aliases=["regex match", "regex", "pattern match", "text contains", "string match"],
)
def regex_match(string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool) -> bool:
    """Check whether a regular expression matches anywhere in a text."""
    return _compile(regex_pattern, case_insensitive, multiline, dotall).search(string) is not None


@NODES(
    "RegexExtract",
    "Extract Text",
    [
        _text(),
        _pattern(),
        choice("mode", ["First Match", "All Matches", "First Group", "All Groups"], tooltip="What is taken."),
        *_flags(),
        integer("group_index", 1, 0, 100, advanced=True, tooltip="Which group in brackets."),
    ],
    [io.String],
    validate=_is_pattern,
    search_aliases=["regex extract", "regex", "pattern extract", "text parser", "parse text"],
)
def regex_extract(
    string: str,
    regex_pattern: str,
    mode: str,
    case_insensitive: bool,
    multiline: bool,
    dotall: bool,
    group_index: int,
) -> str:
    """Take what a regular expression matches; several matches are on lines of their own."""
    pattern = _compile(regex_pattern, case_insensitive, multiline, dotall)
    found = list(pattern.finditer(string))
    if mode.startswith("First"):
        found = found[:1]
    if mode.endswith("Groups") or mode.endswith("Group"):
        # As in ComfyUI, the whole match is a group of its own for the first match alone.
        if pattern.groups < max(group_index, mode == "All Groups"):
            return ""
        return "\n".join(match.group(group_index) or "" for match in found)
    if mode == "All Matches" and pattern.groups:
        # As Python's findall, which gives the groups where there are any.
        return "\n".join(match.group(1) or "" for match in found)
    return "\n".join(match.group() for match in found)


@NODES(
    "RegexReplace",
    "Replace Text (Regex)",
    [
        _text(),
        _pattern(),
        _text("replace", r"What takes the place of a match; \1 is its first group."),
        *_flags(optional=True),
        integer("count", 0, 0, 100, optional=True, advanced=True, tooltip="How many matches; 0 is all."),
    ],
    [io.String],
    validate=_is_pattern,
    search_aliases=["regex replace", "regex", "pattern replace", "substitution"],
)
def regex_replace(
    string: str,
    regex_pattern: str,
    replace: str,
    case_insensitive: bool = True,
    multiline: bool = False,
    dotall: bool = False,
    count: int = 0,
) -> str:
    """Replace what a regular expression matches."""
    return _compile(regex_pattern, case_insensitive, multiline, dotall).sub(replace, string, count=count)


@NODES(
    "JsonExtractString",
    "Extract Text from JSON",
    [_text("json_string", "A JSON object."), io.String.Input("key", tooltip="Which of its values.")],
    [io.String],
    search_aliases=["json", "extract json", "parse json", "json value", "read json"],
)
def json_extract(json_string: str, key: str) -> str:
    """Take a value out of a JSON object; nothing where there is none."""
    try:
        value = json.loads(json_string)
    except ValueError:
        return ""
    found = value.get(key) if isinstance(value, dict) else None
    return "" if found is None else str(found)


@NODES(
    "StringFormat",
    "Format Text",
    [
        io.Autogrow.Input(
            "values",
            io.Autogrow.TemplateNames(io.AnyType.Input("value"), names=letters.ascii_lowercase, min=0),
            tooltip="What is filled in; linking the last adds another.",
        ),
        text("f_string", default="{a}", tooltip="The text, with the names of values in braces."),
    ],
    [io.String],
    search_aliases=["string", "format"],
)
def format_text(f_string: str, values: dict[str, Any]) -> str:
    """Fill values into a text, as Python's `str.format` does."""
    try:
        return f_string.format(**values)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        given = ", ".join(values) or "none"
        raise ValueError(f"f_string {f_string!r} cannot be filled in ({error}); values are {given}") from None
