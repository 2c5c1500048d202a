"""What to write: strings drawn from word lists, running text and made-up numbers, codes and addresses."""

from __future__ import annotations

import random
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from crnn.charset import Charset
from crnn.errors import DataError
from crnn.marks import CLOSING, OPENING, WIDE, typeset

MAX_LENGTH = 40
TRIES = 10_000  # before it is said that nothing fits
# How often each kind of string is drawn; presets override it.
DEFAULT_MIX = {
    "word": 0.52,
    "number": 0.12,
    "code": 0.06,
    "web": 0.03,
    "line": 0.12,
    "punctuated": 0.09,
    "random": 0.06,
}
_OPENING = ["(", "[", '"', "'", "$", "#", "*", "<", "{", "-", "&", "@", "~", "_", "|", "/", "+", "=", "^", "`", "\\"]
_CLOSING = [".", ",", ":", ";", "!", "?", ")", "]", '"', "'", "%", "*", ">", "}", "-", "'s", "...", "/", "+", "|", "\\"]
_CLOSING += [").", "),", ");", "):", '."', ',"', '!"', '?"', "].", "],"]
# Between and around words of a script without spaces.
_MARKS = (*"，，，，，，，，，，，。。。。。。。、、、、、：：：；；！！？？·/→—～", "——", "——", "……", "……", "…")
# As they are typed where no Chinese input is at hand: by programmers, in chats, in file names.
_TYPED = (*"-/_+=@#", "--", "--", " -- ", " -- ", " - ", "...", ". ", ", ", ": ", " / ", " + ", " | ")
_TYPED_AROUND = ('"{}"', '"{}"', "'{}'", "({})", "({})", "`{}`", "<{}>", "[{}]", "“{}”", "（{}）")
_ENCLOSED = ("《{}》", "《{}》", "（{}）", "（{}）", "“{}”", "“{}”", "[{}]", "「{}」", "【{}】", "‘{}’")
_DASHES = ("——", "——", "--", "--", "-- ")  # before a name, as printed and as typed
# What is typed, and what is printed for it at the beginning and at the end of what it encloses.
PRINTED = {'"': "“”", "'": "‘’", "-": "––"}
_PRINTED = re.compile(r"[\"']|(?<=\d)-(?=\d)|(?<= )-(?= )")
# Letters whose forms differ in nothing but size.
_SIZELESS = re.compile("[cosvwxz ]+")
# What decompositions do not say: between other scripts' characters a Cyrillic О looks like a Latin O, and so on.
_TWINS = dict(zip("ОР︰∶―–━─│╱′", "OP：：—-一一|/’", strict=True))
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Corpus:
    """Draws strings that use only characters of `charset`.

    words: one entry per word, most frequent first (rank decides how often it is drawn). lines: running text, cut at
    random places; drawn for the kinds "line" of scripts written without spaces. mix: kind → weight, see DEFAULT_MIX.
    """

    def __init__(
        self,
        charset: Charset,
        words: Sequence[str],
        lines: Sequence[str] = (),
        mix: dict[str, float] | None = None,
        max_length: int = MAX_LENGTH,
    ) -> None:
        mix = DEFAULT_MIX if mix is None else mix
        makers: dict[str, Callable[[random.Random], str]] = {
            "word": self._word,
            "number": _number,
            "code": self._code,
            "web": self._web,
            "line": self._line,
            "text": self._text,
            "punctuated": self._punctuated,
            "sentence": self._sentence,
            "technical": self._technical,
            "random": self._random,
            "characters": self._characters,
            "digits": lambda rng: _digits(rng, rng.randint(1, 8)),
        }
        if unknown := sorted(set(mix) - set(makers)):
            raise DataError(f"synth mix: unknown kind {unknown[0]!r}; choose from {', '.join(makers)}")
        self.charset = charset
        self._known = frozenset(charset.characters)
        self._both_widths = self._known.issuperset(WIDE.values())
        self.words = [word for word in words if word and self._known.issuperset(word)]
        self.lines = ["".join(c for c in line if c in self._known).strip() for line in lines]
        self.lines = [line for line in self.lines if line]
        if not self.words and mix.keys() & {"word", "web", "line", "punctuated", "sentence", "technical"}:
            raise DataError("synth: no word of the corpus can be written with the charset; give --corpus a text in it")
        if not self.lines and "text" in mix:
            raise DataError(
                "synth: the kind 'text' needs running text; give --corpus a file with lines of several words"
            )
        self._latin = [word for word in self.words if word.isascii() and word.isalpha()]
        self._symbols = "".join(c for c in charset.characters if c != " " and not _looks_like_another(c, charset))
        self._kinds = [makers[kind] for kind in mix]
        self._weights = list(mix.values())
        self.mix, self.max_length = mix, max_length

    @classmethod
    def load(
        cls,
        charset: Charset,
        paths: Iterable[str | Path],
        mix: dict[str, float] | None = None,
        max_length: int = MAX_LENGTH,
    ) -> Corpus:
        """Reads UTF-8 text files: a file whose lines hold one word each is a word list, any other is running text.

        Without paths, the 60,000 most frequent English words of the wordfreq package are used.
        """
        lists: list[list[str]] = []
        lines: list[str] = []
        for path in paths:
            try:
                entries = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); give a readable text file") from error
            entries = [entry for entry in entries if entry]
            if sum(" " in entry for entry in entries) > len(entries) // 10:
                lines += entries
            else:
                lists.append(entries)
        if not lists and not lines:
            lists.append(_frequent_words())
        for entries in lists:
            if entries == sorted(entries):  # the order of such a list says nothing about how frequent its words are
                random.Random(0).shuffle(entries)
        # Interleaved, so that the front of every list stays at the front whatever the lengths.
        words = [word for _, word in sorted(((i / len(part), word) for part in lists for i, word in enumerate(part)))]
        words += [word for line in lines for word in line.split()] if not lists else []
        return cls(charset, words, lines, mix, max_length)

    def sample(self, rng: random.Random) -> str:
        """A non-empty string of at most `max_length` characters, without spaces at its ends, all in the charset."""
        for _ in range(TRIES):
            text = rng.choices(self._kinds, self._weights)[0](rng)[: self.max_length]
            text = "".join(c for c in text if c in self._known).strip()
            if text and _SIZELESS.fullmatch(_unaccented(text)) and self._known.issuperset(text.upper()):
                return text.upper()  # nothing beside them would show that they are small
            if text:
                return text
        raise DataError(
            f"synth: nothing of {', '.join(self.mix)} can be written with the {len(self.charset)} characters of the "
            "charset: change synth.mix, or add what is missing"
        )

    def label(self, text: str) -> str:
        """What is to be read where `text` is written: marks beside Chinese by the rule."""
        return typeset(text) if self._both_widths else text

    def _plain(self, rng: random.Random) -> str:
        # Frequent words, as in print, and rare ones, as on signs and in names, in equal parts.
        return self.words[int(len(self.words) * rng.random() ** rng.choice((1.0, 3.5)))]

    def _word(self, rng: random.Random) -> str:
        return _recase(self._plain(rng), rng)

    def _punctuated(self, rng: random.Random) -> str:
        text = self._word(rng) if rng.random() < 0.7 else _number(rng)
        if rng.random() < 0.35:
            text = rng.choice(_OPENING) + text
        if rng.random() < 0.75:
            text += rng.choice(_CLOSING)
        if rng.random() < 0.15:
            text += rng.choice("-/&.'_@+:") + self._word(rng)
        return text

    def _line(self, rng: random.Random) -> str:
        make = [self._plain, self._punctuated, _number, self._code]
        count = rng.choice((2, 2, 2, 3, 3, 4, 5, 6))
        parts = [rng.choices(make, [0.66, 0.14, 0.14, 0.06])[0](rng) for _ in range(count)]
        if rng.random() < 0.2:  # some of the words in brackets or quotation marks
            first = rng.randrange(count)
            last = rng.randrange(first, count)
            opening, closing = rng.choice(("()", "()", '""', '""', "''", "[]", "<>", "{}"))
            parts[first] = opening + parts[first]
            parts[last] += (
                rng.choice(("", "", "", ",", ".", "!", "?")) + closing + rng.choice(("", "", ".", ",", ";", ":"))
            )
        if rng.random() < 0.25:
            parts[-1] += rng.choice("...,;:!?")
        between = rng.choice((" : ", ", ", " - ", ". ", "; ", " | ", " = ", " > ")) if rng.random() < 0.15 else " "
        text = between.join(parts)
        case = rng.random()
        if case < 0.4:
            return text.upper()
        return text.capitalize() if case < 0.6 else text.title() if case < 0.68 else text

    def _text(self, rng: random.Random) -> str:
        line = rng.choice(self.lines)
        length = rng.randint(1, self.max_length)
        start = rng.randint(0, max(0, len(line) - length))
        return _broken(line[start : start + length])

    def _sentence(self, rng: random.Random) -> str:
        """Words of a script without spaces, one after the other, with its punctuation."""
        length = rng.randint(1, self.max_length)
        text = ""
        spaced = rng.random() < 0.5  # Latin words and numbers stand off from the script or do not
        if rng.random() < 0.1:
            text = _heading(rng)
        typed = rng.random() < 0.25
        while len(text) < length:
            word = self._plain(rng) if rng.random() < 0.86 else rng.choice((_number, _counted, self._code))(rng)
            if typed and rng.random() < (0.4 if word.isascii() else 0.1):
                word = rng.choice(_TYPED_AROUND).format(word)
            if text and text[-1].isascii() + word[0].isascii() >= (1 if spaced else 2) and not text.endswith(" "):
                text += " "
            text += word
            kind = rng.random()
            if kind < 0.17:
                text += rng.choice(_TYPED if typed else _MARKS)
            elif kind < 0.22:
                text += rng.choice(_ENCLOSED).format(self._plain(rng)) + rng.choice(("", "", *"，。、；："))
            elif kind < 0.24:  # somebody says something
                said = self._plain(rng) + rng.choice(("", "，", "、")) + self._plain(rng)
                text += rng.choice(("：", "，", "")) + f"“{said}{rng.choice((*'。。！？，', '……', ''))}”"
            elif kind < 0.265:  # and who said it
                text += rng.choice("。。。！？”…") + rng.choice(_DASHES) + self._plain(rng)
                text += rng.choice(("", f"《{self._plain(rng)}》"))
        return _broken(text[:length])

    def _technical(self, rng: random.Random) -> str:
        """A formula or an address, by itself or between words of a script without spaces."""
        text = _formula(rng) if rng.random() < 0.6 else self._address(rng)
        if rng.random() < 0.75:
            text = self._plain(rng) + rng.choice(("", " ", *"，，：：（")) + text
        if rng.random() < 0.6:
            text += rng.choice(("", " ", *"，，。）；")) + self._plain(rng)
        return _broken(text)

    def _address(self, rng: random.Random) -> str:
        """Of a page: https://www.word.com/word/two.html?id=12"""
        words = [rng.choice(self._latin or ["example"]).lower() for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        start = rng.choice(("https://", "https://", "http://", "ftp://", "")) + rng.choice(("www.", "www.", ""))
        text = start + words[0] + rng.choice((".com", ".com", ".org", ".net", ".cn", ".com.cn", ".io", ".gov.cn"))
        text += "".join(f"/{word}" for word in words[1:])
        return text + rng.choice(("", "", "", "/", ".html", f"?id={rng.randrange(1000)}", f":{rng.randrange(10000)}"))

    def _code(self, rng: random.Random) -> str:
        if rng.random() < 0.7 or not self._latin:
            return _letters_and_digits(rng)
        # Names in programs, of files and of options: readLine(), word_count, Makefile.txt, C:\temp\new, --quiet
        parts = [rng.choice(self._latin).lower() for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        form = rng.random()
        if form < 0.2:
            name = "_".join(parts)
        elif form < 0.3:
            return "_".join(parts) + rng.choice((".txt", ".py", ".cpp", ".h", ".pdf", ".jpg", ".xml", ".exe"))
        elif form < 0.4:
            start, slash = rng.choice((("C:", "\\"), ("", "\\"), ("", "/"), ("", "/"), ("~", "/"), ("..", "/")))
            return start + slash + slash.join(parts)
        elif form < 0.5:
            return rng.choice(("--", "--", "-")) + "-".join(parts) + rng.choice(("", "", f"={rng.randrange(100)}"))
        else:
            name = "".join(part.capitalize() for part in parts)
            name = name if form < 0.7 else name[0].lower() + name[1:]
        return name + rng.choice(("", "()", "();", "[0]", "::", "(1)"))

    def _web(self, rng: random.Random) -> str:
        one, two = (self._plain(rng).lower().strip(string.punctuation) for _ in range(2))
        end = rng.choice([".com", ".org", ".net", ".de", ".co.uk", ".edu", ".sg", ".fr", ".info", ".html"])
        form = rng.randrange(5)
        if form == 0:
            return f"{one}@{two}{end}"
        if form == 1:
            return f"www.{one}{end}"
        if form == 2:
            return self._address(rng)
        return f"{one}{rng.choice(['', '.', '-', '_'])}{two}{end}" if form == 3 else f"{rng.choice('@#')}{one}"

    def _random(self, rng: random.Random) -> str:
        # Even weights per class: every symbol of the charset is learnt, however rare in words.
        kind = rng.random()
        symbols = self._symbols
        if kind < 0.45:
            return rng.choice(symbols)
        length = rng.randint(2, 8)
        return "".join(rng.choice(symbols) for _ in range(length))

    def _characters(self, rng: random.Random) -> str:
        # Charsets of thousands: a line of any of them is a dozen rare ones for the price of one crop.
        return "".join(rng.choice(self._symbols) for _ in range(rng.randint(2, self.max_length)))


def printed(text: str) -> str:
    """With quotation marks and dashes as books and letters have them, one for one."""

    def form(found: re.Match[str]) -> str:
        before = text[: found.start()]
        opens = not before or before[-1] in " ([{<\"'-"
        # „German“ and “English” close with different marks.
        return PRINTED[found[0]][0 if opens or (found[0] == '"' and "„" in before) else 1]

    return _PRINTED.sub(form, text)


def _unaccented(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _broken(line: str) -> str:
    """As lines are broken: no mark that closes at the beginning, none that opens at the end."""
    return line.lstrip(CLOSING + " )],;").rstrip(OPENING + " ([{")


def _looks_like_another(character: str, charset: Charset) -> bool:
    """Full-width and small forms and the like: by itself nobody could tell such a character from the plain one. The
    punctuation of running text is told by the room around it."""
    if character in _TWINS:
        return _TWINS[character] in charset
    form, _, plain = unicodedata.decomposition(character).rpartition(" ")
    alike = form in ("<wide>", "<small>", "<compat>") and chr(int(plain, 16)) in charset.characters
    return alike and character not in "，：；！？（）"


def _recase(word: str, rng: random.Random) -> str:
    case = rng.random()
    if case < 0.34:
        return word.upper()
    if case < 0.56:
        return word[:1].upper() + word[1:].lower()
    return word.lower() if case < 0.8 else word


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(count))


def _number(rng: random.Random) -> str:
    form = rng.randrange(12)
    if form < 3:
        return _digits(rng, rng.choice([1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 10, 12]))
    if form == 3:
        return (
            rng.choice(["", "$", "$", "RM", "S$", "-", "EUR ", "€", "£"]) + f"{rng.randrange(1000)}.{_digits(rng, 2)}"
        )
    if form == 4:
        return f"{rng.randrange(10 ** rng.randint(1, 8)):,}{rng.choice(['', '', '.00', '.50'])}"
    if form == 5:
        sep = rng.choice("/-./")
        year = rng.choice(("", "20", "19")) + _digits(rng, 2)
        return f"{rng.randint(1, 31):02d}{sep}{rng.randint(1, 12):02d}{sep}{year}"
    if form == 6:
        return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}" + rng.choice(
            ["", ":" + _digits(rng, 2), " AM", "PM", "am", "pm"]
        )
    if form == 7:
        return rng.choice(
            [f"{rng.randrange(101)}%", f"{rng.random() * 100:.1f}%", f"{rng.randrange(100)}.{_digits(rng, 1)}"]
        )
    if form == 8:
        return rng.choice(
            [
                f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}",
                f"{_digits(rng, 3)}-{_digits(rng, 4)}",
                f"+{_digits(rng, 2)} {_digits(rng, 4)} {_digits(rng, 4)}",
                f"{_digits(rng, 2)}-{_digits(rng, 7)}",
                f"{_digits(rng, 4)} {_digits(rng, 4)}",
            ]
        )
    if form == 9:
        n = rng.randint(1, 31)
        return rng.choice(
            [
                f"{n}{'th' if n % 10 not in (1, 2, 3) else 'st'}",
                f"{rng.choice(_MONTHS)} {n}",
                f"{n}-{rng.choice(_MONTHS)}-{_digits(rng, 2)}",
            ]
        )
    if form == 10:
        unit = rng.choice(("", "A", "/2", "x", "**", "kg", "ml", "g", "km", "mm"))
        return rng.choice(("#", "No.", "@", "x", "*", "")) + _digits(rng, rng.randint(1, 4)) + unit
    return f"{rng.randrange(100)}{rng.choice(['/', '-', ' - ', 'x', '*', '+', ':', '.'])}{rng.randrange(1000)}"


def _formula(rng: random.Random) -> str:
    """x + y = 15, 3a-2b>0, f(x) = sin(2x), E=mc^2"""

    def term() -> str:
        name = rng.choice("xxxyyzabcnmkijtrEFPSV")
        number = str(rng.randrange(10 ** rng.choice((1, 1, 2, 2, 3))))
        form = rng.random()
        if form < 0.35:
            return name
        if form < 0.7:
            return number
        if form < 0.8:
            return number + name
        if form < 0.88:
            return name + rng.choice(("^2", "^n", "[i]", "1", "2", "_0"))
        return rng.choice(("sin", "cos", "tan", "log", "ln", "f", "g", "max", "sqrt", "COS", "SUM")) + f"({name})"

    room = rng.choice((" ", " ", ""))
    signs = rng.choices("+-*/", (5, 4, 2, 2), k=rng.choice((0, 1, 1, 2)))
    text = term() + "".join(room + sign + room + term() for sign in signs)
    if rng.random() < 0.85 or not signs:
        relation = rng.choice(("=", "=", "=", "=", "<", ">", "<=", ">=", "==", "!=", "+=", "->"))
        text += room + relation + room + rng.choice(("", "", "", "-" if room else "")) + term()
    return text


def _counted(rng: random.Random) -> str:
    """A number as Chinese has it, with what it counts."""
    number = rng.choice((f"{rng.randrange(10 ** rng.randint(1, 5))}", f"{rng.randrange(100)}.{rng.randrange(10)}"))
    form = rng.random()
    if form < 0.45:
        return number + rng.choice("年月日个元克米号次岁人万亿点分秒楼室天名家台%℃℃")
    if form < 0.6:
        return f"第{rng.randint(1, 40)}{rng.choice('章节条页期届次')}"
    if form < 0.8:
        year = f"{rng.randint(1900, 2040)}年" if rng.random() < 0.7 else ""
        return f"{year}{rng.randint(1, 12)}月{rng.randint(1, 31)}日"
    if form < 0.9:
        times = [f"{rng.randint(0, 23)}:{rng.randrange(60):02d}" for _ in range(2)]
        return rng.choice("—-～").join(times)
    return rng.choice("￥￥±~") + number


def _heading(rng: random.Random) -> str:
    """What stands before a heading, a caption, an item of a list: `• `, `2.1. `, `表 6.3 `, `(4)`, `（三）`, `一、`"""
    form = rng.random()
    if form < 0.4:
        return rng.choice("•●·◆■★→①②③*-+") + rng.choice(("", " "))
    numbers = ".".join(str(rng.randint(1, 12)) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    if form < 0.65:
        return numbers + rng.choice((". ", ". ", ".", " ", "、", ") "))
    if form < 0.8:
        return rng.choice("表图例注") + rng.choice(("", " ")) + numbers + rng.choice((". ", " ", "："))
    if form < 0.9:
        return f"({rng.choice('123456789abcde')})" + rng.choice(("", " "))
    return rng.choice(("{}、", "（{}）", "第{}章 ", "{}．")).format(rng.choice("一二三四五六七八九十"))


def _letters_and_digits(rng: random.Random) -> str:
    letters = string.ascii_uppercase if rng.random() < 0.8 else string.ascii_letters
    parts = []
    for _ in range(rng.randint(1, 3)):
        pool = rng.choice([letters, string.digits, letters + string.digits])
        parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 5))))
    return rng.choice(["-", "-", "", " ", "/", ".", "_", "#"]).join(parts)


def _frequent_words() -> list[str]:
    try:
        from wordfreq import top_n_list
    except ImportError as error:
        raise DataError(
            "no corpus given and the wordfreq package is missing; give --corpus FILE or pip install 'crnn[train]'"
        ) from error
    return top_n_list("en", 60_000)
