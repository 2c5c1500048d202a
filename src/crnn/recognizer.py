"""Recognizer: images of words and lines to text."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from crnn import boxes, ctc, image, pretrained
from crnn.batching import TOGETHER, Batch, Logits, batches, neighbours, stacked
from crnn.card import INT8
from crnn.charset import BLANK, Charset
from crnn.decoding import Decoder
from crnn.document import Box, Character, Line
from crnn.doubt import Crop, Doubt, Read, Reading
from crnn.errors import CharsetError, CrnnError, ImageError, ModelError
from crnn.image import ImageSource, Preprocessing
from crnn.marks import WIDE, kept, typeset
from crnn.runtime import Engine, open_engine
from crnn.views import View, small

READ_AHEAD = 512  # images of a group, which are sorted by width together;
PART = 32  # of them a core prepares at a time, and fewer are not worth sharing
GROUPS = 2  # are under way at a time, so that no core waits for the end of one

Each: TypeAlias = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]
"""`map`, or that of threads."""


def load(
    model: str | Path = "en",
    engine: str = "openvino",
    *,
    precision: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    turning: bool = True,
    first: bool = True,
    **decoding: Any,
) -> Recognizer:
    """Open a bundled model by its name, a model folder or a model.onnx.

    `precision`, `threads` and `device` say how it computes (see `crnn.runtime.open_engine`), `decoding` how it reads
    (see `crnn.decoding.Decoder`): decoder, lexicon, allow, pattern, language_model, width, split_words. Without
    `turning` all text is taken to run level (see `Recognizer.crop`), without `first` a model that names a smaller one,
    which reads what is easy before it, reads all by itself. Several threads may share what is opened; a
    process that is forked has to open its own, since the engine's threads are not forked with it.
    """
    opened = open_engine(pretrained.find_model(model), engine, precision=precision, threads=threads, device=device)
    reader = Recognizer(opened, str(model), turning, **decoding)
    if first and (name := reader.card.get("first")) and reader.decoder.plain:
        eight = precision == "int8" and not (pretrained.find_model(name) / INT8).exists()  # small ones gain nothing
        reader.first = load(
            name, engine, precision=None if eight else precision, threads=threads, device=device, turning=False,
            first=False, split_words=decoding.get("split_words"),
        )  # fmt: skip
        if reader.first.charset != reader.charset:
            raise ModelError(
                f"model {model} names {name} to read before it, which reads other characters: change that in its card"
            )
    return reader


class Recognizer:
    """Reads crops that hold one word or one line each."""

    def __init__(self, engine: Engine, name: str = "model", turning: bool = True, **decoding: Any) -> None:
        self.engine = engine
        self.name = name
        self.turning = turning
        self.first: Recognizer | None = None  # a smaller one of the same characters, which reads what is easy
        self.card = engine.card
        try:
            self.charset = Charset(self.card["charset"])
            self.preprocessing = Preprocessing.from_dict(self.card["preprocessing"])
        except (KeyError, TypeError, AttributeError, CharsetError) as error:
            raise ModelError(f"model {name} has an unusable model.json: {error}") from None
        self._any_width = replace(self.preprocessing, max_width=sys.maxsize)
        # OpenVINO sums up one image of this network in another order than several, and a neighbour must change nothing.
        self._least = 2 if (self.card.get("architecture") or {}).get("name") == "crnn-tiny" else 1
        self.decoder = Decoder.create(self.charset, self.card.get("decoder") or {}, **decoding)
        # Where texts are ruled out, no other may come of what is left.
        self._both_widths = set(WIDE.values()) <= set(self.charset.characters) and not (
            self.decoder.limited or self.decoder.lexicon
        )
        self._cores = ThreadPoolExecutor(self.engine.parallel, "crnn-core")
        self._groups = ThreadPoolExecutor(GROUPS, "crnn-group")  # they wait for the cores

    def read(self, source: ImageSource, characters: bool = True) -> Line:
        """Read one image: a path, encoded bytes, a PIL image or a numpy array; `characters` as for `read_many`."""
        return self.read_crops([self.crop(source)], characters)[0]

    def read_batch(self, sources: Iterable[ImageSource]) -> list[Line]:
        """Read many, in their order; each answer is the one that `read` gives. The first bad image raises its error."""
        lines = []
        for _, line in self.read_many(sources):
            if isinstance(line, CrnnError):
                raise line
            lines.append(line)
        return lines

    def read_many(
        self, sources: Iterable[ImageSource], characters: bool = True
    ) -> Iterator[tuple[ImageSource, Line | CrnnError]]:
        """Read any number, in their order, yielding (source, Line) or, for one that cannot be read, (source, error).

        Of a group of images every core decodes and prepares a part, and then takes batches of one width until none is
        left; meanwhile the next group is begun. `characters`: with the places of the characters, or the text alone,
        which is quicker.
        """
        sources = iter(sources)
        if len(group := list(islice(sources, READ_AHEAD))) < PART or self.engine.parallel == 1:
            while group:
                yield from zip(group, self._read_group(group, characters, False, map), strict=True)
                group = list(islice(sources, READ_AHEAD))
            return
        ahead: deque[tuple[list[ImageSource], Future[list[Line | CrnnError]]]] = deque()
        try:
            while group or ahead:
                while group and len(ahead) < GROUPS:
                    ahead.append(
                        (group, self._groups.submit(self._read_group, group, characters, True, self._cores.map))
                    )
                    group = list(islice(sources, READ_AHEAD))
                done, lines = ahead.popleft()
                yield from zip(done, lines.result(), strict=True)
        finally:
            for _, lines in ahead:
                lines.cancel()

    def crop(
        self,
        source: ImageSource,
        name: str | None = None,
        max_pixels: int = image.MAX_PIXELS,
        any_width: bool = False,
        views: bool = True,
    ) -> Crop:
        """The first half of `read`: load an image of less than `max_pixels` and bring it to the model's height.

        `any_width`: of any length; what is beyond the model's width is read in windows that overlap. Without `views`
        it will be read as it lies only. ImageError calls the image by `name`, else by its path.
        """
        path = str(source) if isinstance(source, (str, Path)) else None
        pixels = image.load(source, name, max_pixels)
        height, width = pixels.shape[:2]
        settings = self._any_width if any_width else self.preprocessing
        # Not too long, lying or standing.
        short = max(width, height) <= self.preprocessing.max_width * min(width, height) / self.preprocessing.height
        try:
            prepared = image.prepare(pixels, settings)
        except ImageError as error:
            raise ImageError(f"{name or path}: {error}") if name or path else error from None
        return Crop(prepared, width, height, path, small(pixels) if short and views and self.turning else None)

    def _try_crops(self, sources: Sequence[ImageSource]) -> list[Crop | ImageError]:
        return [self._try_crop(source) for source in sources]

    def _try_crop(self, source: ImageSource) -> Crop | ImageError:
        try:
            return self.crop(source)
        except ImageError as error:
            return error

    def read_crops(self, crops: Sequence[Crop], characters: bool = True, beside: bool = False) -> list[Line]:
        """The second half: the answers are those of `read`, in the order of the crops, whatever their neighbours.

        What is doubtful is read again (see `crnn.doubt.Doubt.settle`). `beside`: other threads read at the same time
        (see `Engine.run`).
        """
        return self._read_crops(crops, characters, beside, map)

    def _read_crops(self, crops: Sequence[Crop], characters: bool, beside: bool, each: Each) -> list[Line]:
        def reading(reader: Recognizer) -> Read:
            return lambda crops: reader._read_as_they_lie(crops, characters, beside, each)

        first = reading(self.first) if self.first else None
        return Doubt(crops, reading(self), first, self._seen).settle()

    def _seen(self, view: View, path: str | None) -> Crop:
        height, width = view.pixels.shape[:2]
        prepared = image.prepare(view.pixels, self._any_width)  # a line may just have fitted
        return Crop(prepared, width, height, path)

    def _read_as_they_lie(self, crops: Sequence[Crop], characters: bool, beside: bool, each: Each) -> list[Reading]:
        def run(batch: Batch) -> Logits:
            return self._logits([crops[i].pixels for i in batch.members], batch.width, batch.rows, beside)

        def keep(batch: Batch) -> tuple[Batch, Logits]:
            return batch, run(batch).copy()

        def decode(part: Sequence[tuple[Batch, Logits]]) -> dict[int, Reading]:
            members = [i for batch, _ in part for i in batch.members]
            found = self._readings([crops[i] for i in members], stacked([logits for _, logits in part]), characters)
            return dict(zip(members, found, strict=True))

        column = self.charset.num_classes / self.preprocessing.stride  # logits per pixel of width
        chosen = batches([crop.bucket for crop in crops], self._least)
        large = [batch for batch in chosen if batch.rows * batch.width * column > TOGETHER]
        small = [batch for batch in chosen if batch.rows * batch.width * column <= TOGETHER]
        at_once, kept = each(lambda batch: decode([(batch, run(batch))]), large), each(keep, small)
        found = list(at_once)
        found += each(decode, neighbours(kept))
        readings = {i: reading for part in found for i, reading in part.items()}
        return [readings[i] for i in range(len(crops))]

    def _read_group(
        self, sources: Sequence[ImageSource], characters: bool, beside: bool, each: Each
    ) -> list[Line | CrnnError]:
        parts = [sources[start : start + PART] for start in range(0, len(sources), PART)]
        tried = list(chain.from_iterable(each(self._try_crops, parts)))
        lines = iter(self._read_crops([crop for crop in tried if isinstance(crop, Crop)], characters, beside, each))
        return [next(lines) if isinstance(crop, Crop) else crop for crop in tried]

    def _logits(self, crops: Sequence[image.Image], width: int, rows: int, beside: bool) -> Logits:
        """(N, T, C) of N crops, which an engine may overwrite when this thread calls again."""
        if width > self.preprocessing.max_width:
            rows = len(crops)
            logits = np.stack([self._read_windows(crop, width, beside) for crop in crops])
        else:
            logits = self.engine.run(image.stack(crops, width, rows), beside, passing=True)
        expected = (rows, image.timesteps(width, self.preprocessing.stride), self.charset.num_classes)
        if logits.shape != expected:
            raise ModelError(
                f"model {self.name} gives logits of shape {logits.shape} where its model.json promises {expected}: "
                "export it again"
            )
        return logits[: len(crops)]

    def _readings(self, crops: Sequence[Crop], logits: Logits, characters: bool) -> list[Reading]:
        steps = [image.timesteps(crop.pixels.shape[1], self.preprocessing.stride) for crop in crops]
        decodings = self.decoder(logits, steps)
        lines = self._lines(crops, decodings) if characters else self._texts(crops, decodings)
        return [_reading(line, decoding) for line, decoding in zip(lines, decodings, strict=True)]

    def _read_windows(self, crop: image.Image, width: int, beside: bool) -> Logits:
        """(T, C) of a prepared crop as if padded to `width`, put together from windows that overlap.

        A window sees less than the whole line only near its ends, so two are joined in the middle of what they share,
        between two characters.
        """
        stride = self.preprocessing.stride
        window = self.preprocessing.max_width // 2 // stride * stride
        overlap = window // 4 // stride * stride
        starts = range(0, max(1, crop.shape[1] - overlap), window - overlap)
        parts = [crop[:, start : start + window] for start in starts]
        logits = self.engine.run(image.stack(parts, window), beside)
        joined, shared = logits[0], overlap // stride
        for start, following in zip(starts[1:], logits[1:], strict=True):
            first = start // stride
            blank = [ctc.log_softmax(each)[:, BLANK] for each in (joined[first : first + shared], following[:shared])]
            off = np.abs(np.arange(shared) - shared / 2) / shared
            at = int((blank[0] + blank[1] - off).argmax())  # the surest blank, but rather in the middle
            joined = np.concatenate([joined[: first + at], following[at:]])
        steps = image.timesteps(width, stride)
        padding = np.repeat(joined[-1:], max(0, steps - len(joined)), axis=0)
        return np.concatenate([joined, padding])[:steps]

    def _text(self, read: str) -> str:
        return typeset(read) if self._both_widths else read

    def _texts(self, crops: Sequence[Crop], decodings: Sequence[ctc.Decoding]) -> list[Line]:
        lines = []
        for crop, decoding in zip(crops, decodings, strict=True):
            text = self._text(self.charset.decode(decoding.classes))
            if self.decoder.splitter:
                text = self.decoder.splitter.split(text)
            lines.append(Line(text, decoding.confidence, path=crop.path))
        return lines

    def _lines(self, crops: Sequence[Crop], decodings: Sequence[ctc.Decoding]) -> list[Line]:
        lines = []
        places = iter(self._boxes(crops, decodings))
        for crop, decoding in zip(crops, decodings, strict=True):
            read = self.charset.decode(decoding.classes)
            text = self._text(read)
            found = list(zip(decoding.confidences, islice(places, len(read)), strict=True))
            characters = [Character(character, *found[i]) for character, i in zip(text, kept(read, text), strict=True)]
            if self.decoder.splitter:
                characters = _parted(characters, self.decoder.splitter.split(text))
                text = "".join(character.text for character in characters)
            lines.append(Line(text, decoding.confidence, tuple(characters), path=crop.path))
        return lines

    def _boxes(self, crops: Sequence[Crop], decodings: Sequence[ctc.Decoding]) -> Iterator[Box]:
        """The box of every character of every crop, in pixels of the original."""
        spans = [decoding.spans for decoding in decodings]
        numbers = [len(each) for each in spans]
        size = np.repeat([(crop.width, crop.height) for crop in crops], numbers, axis=0)  # (characters, 2)
        prepared = np.repeat([crop.pixels.shape[1::-1] for crop in crops], numbers, axis=0)
        places = boxes.place_all([crop.pixels for crop in crops], spans, self.preprocessing.stride)
        places = (places.reshape(-1, 2, 2) * (size / prepared)[:, np.newaxis]).astype(int)
        near = places[:, 0]
        far = np.minimum(np.maximum(near + 1, places[:, 1]), size)
        return map(tuple, np.concatenate([near, far], axis=1).tolist())

    def __repr__(self) -> str:
        return f"<Recognizer {self.name}: {len(self.charset)} characters>"


def _reading(line: Line, decoding: ctc.Decoding) -> Reading:
    probability = decoding.confidence if decoding.among_all is None else decoding.among_all
    return Reading(line, float(probability ** (1 / max(1, len(line.text)))))


def _parted(characters: list[Character], text: str) -> list[Character]:
    """The characters with spaces where `text`, which is theirs but for more spaces, has them."""
    parted: list[Character] = []
    rest = iter(characters)
    following = next(rest, None)
    for character in text:
        if following is not None and character == following.text:
            parted.append(following)
            following = next(rest, None)
        else:
            before, after = parted[-1], following or parted[-1]
            edge = after.box[0]
            box = (min(before.box[2], edge - 1), before.box[1], edge, before.box[3])
            parted.append(Character(character, min(before.confidence, after.confidence), box))
    return parted
