"""Recognizer: images of words and lines to text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from crnn import boxes, ctc, image, pretrained
from crnn.charset import Charset
from crnn.decoding import Decoder
from crnn.document import Character, Line
from crnn.errors import CharsetError, CrnnError, ImageError, ModelError
from crnn.image import ImageSource, Preprocessing
from crnn.runtime import Engine, open_engine

BATCH = 64  # crops that the network sees at a time,
BATCH_PIXELS = BATCH * 256  # and columns of pixels, so that long lines do not multiply the memory
READ_AHEAD = 512  # images that are sorted by width together


def load(model: str | Path = "en", engine: str = "openvino", **decoding: Any) -> Recognizer:
    """Open a bundled model by its name, a model folder or a model.onnx.

    `decoding` says how it reads (see `crnn.decoding.Decoder`): decoder, lexicon, allow, pattern,
    language_model, width, split_words.
    """
    return Recognizer(open_engine(pretrained.find_model(model), engine), str(model), **decoding)


@dataclass(frozen=True)
class Crop:
    """An image made ready for the network."""

    pixels: image.Image  # prepared
    width: int  # of the original, pixels
    height: int
    path: str | None

    @property
    def bucket(self) -> int:
        """The padded width at which it is read; crops of one bucket are read together."""
        return image.bucket(self.pixels.shape[1])


class Recognizer:
    """Reads crops that hold one word or one line each."""

    def __init__(self, engine: Engine, name: str = "model", **decoding: Any) -> None:
        self.engine = engine
        self.name = name
        self.card = engine.card
        try:
            self.charset = Charset(self.card["charset"])
            self.preprocessing = Preprocessing.from_dict(self.card["preprocessing"])
        except (KeyError, TypeError, AttributeError, CharsetError) as error:
            raise ModelError(f"model {name} has an unusable model.json: {error}") from None
        self.decoder = Decoder.create(self.charset, self.card.get("decoder") or {}, **decoding)

    def read(self, source: ImageSource) -> Line:
        """Read one image: a path, encoded bytes, a PIL image or a numpy array."""
        return self.read_batch([source])[0]

    def read_batch(self, sources: Iterable[ImageSource]) -> list[Line]:
        """Read many, in their order; each answer is the one that `read` gives. The first bad image raises its error."""
        return self.read_crops([self.crop(source) for source in sources])

    def read_many(self, sources: Iterable[ImageSource]) -> Iterator[tuple[ImageSource, Line | CrnnError]]:
        """Read any number, in their order, yielding (source, Line) or, for one that cannot be read, (source, error)."""
        sources = iter(sources)
        while chunk := list(islice(sources, READ_AHEAD)):
            tried = [self._try_crop(source) for source in chunk]
            lines = iter(self.read_crops([crop for crop in tried if isinstance(crop, Crop)]))
            for source, crop in zip(chunk, tried, strict=True):
                yield source, next(lines) if isinstance(crop, Crop) else crop

    def crop(self, source: ImageSource, max_pixels: int = image.MAX_PIXELS) -> Crop:
        """The first half of `read`: load an image, of less than `max_pixels`, and bring it to the model's height."""
        path = str(source) if isinstance(source, (str, Path)) else None
        pixels = image.load(source, max_pixels=max_pixels)
        try:
            prepared = image.prepare(pixels, self.preprocessing)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") if path else error from None
        return Crop(prepared, pixels.shape[1], pixels.shape[0], path)

    def _try_crop(self, source: ImageSource) -> Crop | ImageError:
        try:
            return self.crop(source)
        except ImageError as error:
            return error

    def read_crops(self, crops: Sequence[Crop]) -> list[Line]:
        """The second half: the answers are those of `read`, in the order of the crops, whatever their neighbours."""
        by_width: dict[int, list[int]] = defaultdict(list)
        for i, crop in enumerate(crops):
            by_width[crop.bucket].append(i)
        lines: dict[int, Line] = {}
        for width, members in by_width.items():
            size = max(1, min(BATCH, BATCH_PIXELS // width))
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                decodings = self._decode([crops[i].pixels for i in batch], width)
                lines |= {i: self._line(crops[i], decoding) for i, decoding in zip(batch, decodings, strict=True)}
        return [lines[i] for i in range(len(crops))]

    def _decode(self, crops: Sequence[image.Image], width: int) -> list[ctc.Decoding]:
        stride = self.preprocessing.stride
        logits = self.engine.run(image.stack(crops, width))
        expected = (len(crops), image.timesteps(width, stride), self.charset.num_classes)
        if logits.shape != expected:
            raise ModelError(
                f"model {self.name} gives logits of shape {logits.shape} where its model.json promises {expected}: "
                "export it again"
            )
        return self.decoder(logits, [image.timesteps(crop.shape[1], stride) for crop in crops])

    def _line(self, crop: Crop, decoding: ctc.Decoding) -> Line:
        text = self.charset.decode(decoding.classes)
        rows, columns = crop.pixels.shape[:2]
        across, down = crop.width / columns, crop.height / rows  # pixels of the original a pixel of the prepared crop
        places = boxes.place(crop.pixels, decoding.spans, self.preprocessing.stride) * (across, down, across, down)
        characters = []
        for character, confidence, place in zip(text, decoding.confidences, places.astype(int).tolist(), strict=True):
            left, top, right, bottom = place
            box = (left, top, min(max(left + 1, right), crop.width), min(max(top + 1, bottom), crop.height))
            characters.append(Character(character, confidence, box))
        if self.decoder.splitter:
            characters = _parted(characters, self.decoder.splitter.split(text))
            text = "".join(character.text for character in characters)
        return Line(text, decoding.confidence, tuple(characters), path=crop.path)

    def __repr__(self) -> str:
        return f"<Recognizer {self.name}: {len(self.charset)} characters>"


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
