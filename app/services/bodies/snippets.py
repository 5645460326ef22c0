"""Objects in text that is not JSON: what a curl command sends, and object literals of Python and JavaScript."""

from __future__ import annotations

import json
import re
import shlex
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ....host.errors import GraphError

DATA = ("--data", "--data-raw", "--data-binary", "--data-ascii", "--json", "-d")
FORM = ("--form", "--form-string", "--data-urlencode", "-F")
CONSTANTS = {"true": True, "True": True, "false": False, "False": False}
CONSTANTS |= dict.fromkeys(("null", "None", "undefined"))

MOST_TRIES = 10_000
"""Largest number of braces that are tried as the begin of an object."""

_CONTINUED = re.compile(r"[\\^`][ \t]*\r?\n")
_ANSI_QUOTED = re.compile(r"(?<=\s)\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_QUOTED_OBJECT = re.compile(r'"(\s*(?:\\[rnt]\s*)*\{(?:[^"\\]|\\.)*)"')
_BLANK = re.compile(r"(?:\s|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$]*|[-+.\d][-+.\w]*")
_STRING = re.compile(r"""[rRbBuU]?("{3}|'{3}|["'`])""")
_ASSIGNED = re.compile(r"(?:^|[\n;])\s*(?:const |let |var )?([A-Za-z_]\w*)(?::[^=\n]+)?\s*=(?!=)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}


class NotALiteralError(ValueError):
    """The text is an expression, and not an object, a list or a constant."""


@dataclass(frozen=True)
class Expression:
    """Code whose value only running it would tell. `known` are the variables whose values are literals."""

    code: str
    known: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def objects(self) -> list[Any]:
        """Return the outermost object literals in it."""
        return list(_Reader(self.code, known=dict(self.known)).objects())


def objects(text: str) -> list[Any]:
    """Return the objects in a text: what its curl commands send, otherwise its outermost object literals."""
    sent = [each for line in _commands(text) for each in _sent(line)]
    if sent:
        return sent
    reader = _Reader(text)
    return [*reader.objects(), *_quoted(text, reader.spans)]


def literal(text: str) -> Any:
    """Return the object or list that a whole text is, as code writes it; None where it is something else."""
    reader = _Reader(text)
    found = reader.attempt(0, lambda: reader.value("\n;"))
    return found if isinstance(found, dict | list) and not text[reader.at :].strip() else None


def _quoted(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Return the objects that texts in code hold as JSON, as in Java and C#, which have no literals for them.

    Args:
        spans: where objects were read already, with the texts in them.
    """
    for found in _QUOTED_OBJECT.finditer(text):
        before = bisect_right(spans, (found.start(), len(text))) - 1
        with suppress(ValueError, RecursionError):
            value = json.loads(_unescaped(found[1]))
            if isinstance(value, dict) and (before < 0 or spans[before][1] <= found.start()):
                yield value


def _commands(text: str) -> list[list[str]]:
    """Return the arguments of the curl commands in a text."""
    if not re.search(r"\bcurl(?:\.exe)?\s", text):
        return []
    if re.search(r'\bcurl(?:\.exe)?\s+(?:-\S+\s+)*\^"', text):
        # As a browser copies it for cmd, which a circumflex escapes in.
        text = re.sub(r"\^(\r?\n|.)", lambda found: "" if found[1].isspace() else found[1], text)
    text = _ANSI_QUOTED.sub(lambda found: shlex.quote(_unescaped(found[1])), _CONTINUED.sub(" ", text))
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    starts = [number for number, word in enumerate(words) if re.fullmatch(r"(?:.*[/\\])?curl(?:\.exe)?", word)]
    return [words[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _sent(words: list[str]) -> Iterator[Any]:
    """Return the objects that a curl command sends."""
    given = list(_options(words))
    for option, value in given:
        if value.startswith("@") and option != "--data-raw":
            line = f"curl sends the file {value[1:]}, which is not read; expected that file instead of the command"
            raise GraphError([line])
    bodies = [value for option, value in given if option in DATA]
    for value in bodies:
        try:
            yield json.loads(value)
        except ValueError:
            yield from [dict(parse_qsl(value))] if "=" in value.partition("{")[0] else _Reader(value).objects()
    fields = [value.partition("=") for option, value in given if option in FORM]
    if fields:
        yield {name: value for name, _, value in fields}


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Return the options that send something, with their values: `-d X`, `-dX`, `--data X`, `--data=X`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if word in (*DATA, *FORM):
            yield word, following
        elif equals and name.startswith("--") and name in (*DATA, *FORM):
            yield name, value
        elif word[:2] in ("-d", "-F"):
            yield word[:2], word[2:]


def _number(word: str) -> int | float:
    if not re.match(r"[-+.]?\d", word):
        raise NotALiteralError
    for kind in (lambda: int(word, 0), lambda: float(word)):
        try:
            return kind()
        except ValueError:
            continue
    raise NotALiteralError


def _unescaped(text: str) -> str:
    """Return a text whose backslash escapes are read as JavaScript and Python do."""

    def one(found: re.Match[str]) -> str:
        sign = found[1]
        return chr(int(sign[1:].strip("{}"), 16)) if sign[0] in "ux" and sign[1:] else _ESCAPES.get(sign, sign)

    found = re.sub(r"\\(u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,5}\}|x[0-9a-fA-F]{2}|.|\n)", one, text)
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass
class _Reader:
    """Reads literals as Python and JavaScript write them; names that literals were assigned to stand for these."""

    text: str
    at: int = 0
    known: dict[str, Any] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def objects(self) -> Iterator[dict[str, Any]]:
        """Return the outermost objects, and note in `spans` where they begin and end."""
        for name, start in [(found[1], found.end()) for found in _ASSIGNED.finditer(self.text)]:
            value = self.attempt(start, lambda: self.value("\n;"))
            if not isinstance(value, Expression | None):
                self.known[name] = value
        at, tries = self.text.find("{"), 0
        while at >= 0 and tries < MOST_TRIES:
            tries += 1
            found = self.attempt(at, self._object)
            if found:
                self.spans.append((at, self.at))
                yield found
            at = self.text.find("{", self.at if found else at + 1)

    def attempt(self, at: int, read: Callable[[], Any]) -> Any:
        """Return what `read` reads from a place on; None where there is no such thing."""
        self.at = at
        try:
            return read()
        except (NotALiteralError, IndexError, RecursionError):
            return None

    def _blank(self) -> str:
        """Skip blanks and comments, and return the next sign; "" at the end."""
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.text[self.at : self.at + 1]

    def value(self, ends: str = ",}])") -> Any:
        """Return the value of a literal, or the expression up to one of `ends`."""
        start, sign = self.at, self._blank()
        readers = {"{": self._object, "[": self._list, "(": self._group}
        try:
            value = readers[sign]() if sign in readers else self._constant()
            at, after = self.at, self._blank()
            if "\n" in ends and ("\n" in self.text[at : self.at] or not after):
                return value
            if after and after in ends:
                return value
        except NotALiteralError:
            pass
        self.at = start
        return self._expression(ends)

    def _object(self) -> dict[str, Any]:
        self.at += 1
        found: dict[str, Any] = {}
        while self._blank() != "}":
            name = str(self._constant(is_name=True))
            if self._blank() == ":":
                self.at += 1
                found[name] = self.value()
            else:
                # JavaScript takes the variable of that name.
                found[name] = self.known.get(name, Expression(name, self.known))
            self._separated("}")
        self.at += 1
        return found

    def _list(self) -> list[Any]:
        self.at += 1
        found = []
        while self._blank() != "]":
            found.append(self.value())
            self._separated("]")
        self.at += 1
        return found

    def _group(self) -> Any:
        self.at += 1
        value = self.value(")")
        if isinstance(value, Expression) or self._blank() != ")":
            raise NotALiteralError
        self.at += 1
        return value

    def _separated(self, end: str) -> None:
        sign = self._blank()
        if sign == ",":
            self.at += 1
        elif sign != end:
            raise NotALiteralError

    def _constant(self, is_name: bool = False) -> Any:
        self._blank()
        if _STRING.match(self.text, self.at):
            return self._string()
        found = _WORD.match(self.text, self.at)
        if not found:
            raise NotALiteralError
        self.at = found.end()
        word = found[0]
        if is_name:
            return word
        if word in CONSTANTS or word in self.known:
            return CONSTANTS[word] if word in CONSTANTS else self.known[word]
        return _number(word)

    def _string(self) -> str:
        """Read a text; in Python, several beside each other are one."""
        parts, after = [], self.at
        while opened := _STRING.match(self.text, self.at):
            quote, start = opened[1], opened.end()
            end = re.compile(rf"(?:[^\\]|\\.)*?{quote}", re.DOTALL).match(self.text, start)
            if not end or (quote == "`" and "${" in end[0]):
                raise NotALiteralError
            self.at = end.end()
            inside = end[0][: -len(quote)]
            parts.append(inside if opened[0][0] in "rR" else _unescaped(inside))
            after = self.at
            self._blank()
        self.at = after
        return "".join(parts)

    def _expression(self, ends: str) -> Expression:
        """Skip code up to one of `ends` outside of its brackets and texts."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            sign = self.text[self.at]
            if not depth and sign in ends:
                break
            depth += (sign in "([{") - (sign in ")]}")
            quoted = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
            found = quoted.match(self.text, self.at)
            self.at = found.end() if found else self.at + 1
        return Expression(self.text[start : self.at].strip(), self.known)
