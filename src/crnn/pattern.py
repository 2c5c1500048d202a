"""Patterns: what a text may look like (plates, dates, amounts), as a regular expression over a model's characters.

The expression becomes an automaton with a state for everything that may still follow, so that a search only ever walks
along texts that can match. Known are literals, `.`, `[a-z]`, `[^a-z]`, `\\d`, `\\w`, `\\s`, groups, `|`, `?`, `*`, `+`,
`{3}`, `{2,4}`; the whole text must match.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crnn.charset import Charset
from crnn.ctc import Guide
from crnn.errors import ConfigError

MAX_STATES = 10_000

_KINDS: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
}


def characters(description: str, charset: Charset) -> str:
    """The charset's characters that `0-9A-Z.` and the like describe; ConfigError where there are none.

    A backslash makes the next character mean itself, or a kind as in expressions: `\\d` are the digits.
    """
    parser = _Parser(description, charset)
    found = parser.members(end=None)
    if not found:
        raise ConfigError(f"{description!r} describes no character that the model knows: give some, such as 0-9A-Z")
    return "".join(charset.characters[at - 1] for at in sorted(found))


def compile_pattern(pattern: str, charset: Charset) -> Guide:
    """The automaton of an expression; ConfigError says what is wrong with it and where."""
    parser = _Parser(pattern, charset)
    start, end = parser.alternatives()
    if parser.at < len(pattern):
        raise parser.error("has a ) too many")
    return _determine(parser, start, end, charset)


class _Parser:
    """Recursive descent into fragments of a nondeterministic automaton: (start, end) states."""

    def __init__(self, pattern: str, charset: Charset) -> None:
        self.pattern, self.charset, self.at = pattern, charset, 0
        self.empty: list[list[int]] = []  # by state: where it leads without a character
        self.steps: list[tuple[frozenset[int], int] | None] = []  # and with one of some classes

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"pattern {self.pattern!r} {what} (character {self.at + 1})")

    def state(self, step: tuple[frozenset[int], int] | None = None) -> int:
        if len(self.empty) >= MAX_STATES:
            raise self.error(f"needs more than {MAX_STATES} states: make its repetitions smaller")
        self.empty.append([])
        self.steps.append(step)
        return len(self.empty) - 1

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        self.at += 1
        return self.pattern[self.at - 1 : self.at]

    def alternatives(self) -> tuple[int, int]:
        start, end = self.state(), self.state()
        while True:
            first, last = self.sequence()
            self.empty[start].append(first)
            self.empty[last].append(end)
            if self.peek() != "|":
                return start, end
            self.take()

    def sequence(self) -> tuple[int, int]:
        first = last = self.state()
        while self.peek() not in ("", "|", ")"):
            start, end = self.repeated()
            self.empty[last].append(start)
            last = end
        return first, last

    def repeated(self) -> tuple[int, int]:
        begin = self.at
        fragment = self.atom()
        least, most = self.bounds()
        if (least, most) == (1, 1):
            return fragment
        following = self.at
        first = last = self.state()
        for number in range(max(least, most or 0)):
            self.at = begin  # the same text again, into states of its own
            start, end = self.atom()
            if number >= least:
                self.empty[start].append(end)
            self.empty[last].append(start)
            last = end
        if most is None:
            self.at = begin
            start, end = self.atom()
            self.empty[start].append(end)
            self.empty[end].append(start)
            self.empty[last].append(start)
            last = end
        self.at = following
        return first, last

    def bounds(self) -> tuple[int, int | None]:
        """Least and most repetitions that are written here; most is None where there is no end."""
        sign = self.peek()
        if sign and sign in "?*+":
            self.take()
            return {"?": (0, 1), "*": (0, None), "+": (1, None)}[sign]
        if sign != "{":
            return 1, 1
        inside, brace, _ = self.pattern[self.at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        if not brace or not low.isdecimal() or not (high.isdecimal() or not high):
            raise self.error("has a { that is not {3}, {2,} or {2,4}; write \\{ for the character")
        self.at += len(inside) + 2
        least = int(low)
        most = None if comma and not high else int(high) if comma else least
        if most is not None and most < least:
            raise self.error(f"repeats at least {least} and at most {most} times")
        return least, most

    def atom(self) -> tuple[int, int]:
        sign = self.take()
        if sign == "(":
            if self.pattern.startswith("?:", self.at):
                self.at += 2
            fragment = self.alternatives()
            if self.take() != ")":
                raise self.error("has a ( that is not closed")
            return fragment
        if sign in ("?", "*", "+", "{"):
            raise self.error(f"has a {sign} with nothing to repeat; write \\{sign} for the character")
        if sign == "[":
            found = self.bracket()
        elif sign == ".":
            found = set(range(1, self.charset.num_classes))
        elif sign == "\\":
            found = self.escaped()
        else:
            found = self.single(sign)
        end = self.state()
        return self.state((frozenset(found), end)), end

    def bracket(self) -> set[int]:
        negated = self.peek() == "^"
        if negated:
            self.take()
        found = self.members(end="]")
        return set(range(1, self.charset.num_classes)) - found if negated else found

    def members(self, end: str | None) -> set[int]:
        """The classes of characters, kinds and ranges up to the end."""
        found: set[int] = set()
        while self.peek() != (end or ""):
            if not self.peek():
                raise self.error("has a [ that is not closed")
            sign = self.take()
            if sign == "\\" and self.peek() in _KINDS:
                found |= self.escaped()
                continue
            low = self.take() if sign == "\\" else sign
            after = self.pattern[self.at + 1 : self.at + 2]
            if self.peek() == "-" and after and after != end:
                self.take()
                high = self.take()
                high = self.take() if high == "\\" else high
                if high < low:
                    raise self.error(f"has a range from {low} down to {high}")
                found |= {at for at, c in enumerate(self.charset.characters, 1) if low <= c <= high}
            else:
                found |= self.single(low)
        if end:
            self.take()
        return found

    def escaped(self) -> set[int]:
        sign = self.take()
        if not sign:
            raise self.error("ends in a backslash")
        kind = _KINDS.get(sign)
        if kind is None:
            return self.single(sign)
        return {at for at, c in enumerate(self.charset.characters, 1) if kind(c)}

    def single(self, character: str) -> set[int]:
        if character not in self.charset:
            raise self.error(f"asks for {character!r}, which the model does not know")
        return {self.charset.index(character)}


def _determine(parser: _Parser, start: int, end: int, charset: Charset) -> Guide:
    """One state for each set of states that the parser's automaton can be in at once."""

    def closed(states: set[int]) -> frozenset[int]:
        found, new = set(states), list(states)
        while new:
            for each in parser.empty[new.pop()]:
                if each not in found:
                    found.add(each)
                    new.append(each)
        return frozenset(found)

    known = {closed({start}): 0}
    order = list(known)
    rows = []
    for states in order:  # grows meanwhile
        reached: dict[int, set[int]] = {}
        for state in states:
            if step := parser.steps[state]:
                for each in step[0]:
                    reached.setdefault(each, set()).add(step[1])
        row = np.full(charset.num_classes, -1, np.int32)
        merged: dict[frozenset[int], int] = {}
        for each, next_states in reached.items():
            key = frozenset(next_states)
            if key not in merged:
                whole = closed(next_states)
                if whole not in known:
                    if len(known) >= MAX_STATES:
                        raise parser.error(f"needs more than {MAX_STATES} states: make its repetitions smaller")
                    known[whole] = len(order)
                    order.append(whole)
                merged[key] = known[whole]
            row[each] = merged[key]
        rows.append(row)
    ends = np.array([0.0 if end in states else -np.inf for states in order], np.float32)
    return Guide(np.stack(rows), None, ends)
