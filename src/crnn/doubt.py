"""What becomes of doubtful crops: read again by the large network after a small one, and in other views.

A model may have a small network that reads all but long lines first. What that is sure of is done; the large one reads
the rest. What is doubtful still, the small one sees in other views (`crnn.views`), and the large one in the two that
promise most. Without a small network the large one sees all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import TypeAlias

from crnn import image
from crnn.document import Line
from crnn.views import (
    LEAST,
    LONG,
    TALL,
    View,
    aslant_and_bent,
    by_colour,
    closer,
    cut_out,
    running_up_and_down,
    upside_down,
)

BRIEF = 256  # columns of pixels; the small network is sure of all of a longer line too seldom to be asked
SETTLED = 0.85  # of a whole text, from which on the small network is nearly as often right as the large one
UNSURE = 0.92  # of a character on average, below which a crop is also read in other views,
UNSURE_LONG = 0.95  # and a long line, where one doubtful character counts less
NEARLY = 0.01  # less sure than the first reading is sure enough to look at more views of a kind
PROMISING, VIEWS = 0.1, 2  # less sure than of the crop itself the small network may be of a view; of so many views
STROKE = 0.6  # width over height of a crop of a slash alone, at most
STRANGE = 0.85  # below which it is also read upside down


@dataclass(frozen=True)
class Crop:
    """An image made ready for the network."""

    pixels: image.Image  # prepared
    width: int  # of the original, pixels
    height: int
    path: str | None
    whole: image.Image | None = None  # RGB, for views of it

    @property
    def bucket(self) -> int:
        """The padded width at which it is read; crops of one bucket are read together."""
        return image.bucket(self.pixels.shape[1])


@dataclass(frozen=True)
class Reading:
    """sure: the confidence of a character on average, since long texts would lose to short ones; where only some texts
    are allowed it is that among all texts: what is left of them is surer of itself than it should be."""

    line: Line
    sure: float


Read: TypeAlias = Callable[[Sequence[Crop]], list[Reading]]
"""Crops as they lie, in their order."""


@dataclass(frozen=True)
class _Look:
    """A view of the crop with the number `of`, prepared."""

    of: int
    view: View
    crop: Crop


class Doubt:
    """Crops that are read together, and how sure their readings are. Small batches are slow, so all that can be read
    together is."""

    def __init__(
        self, crops: Sequence[Crop], read: Read, first: Read | None, prepare: Callable[[View, str | None], Crop]
    ) -> None:
        self.crops, self.read, self.first, self.prepare = crops, read, first, prepare
        self.glances: dict[int, Reading] = {}  # of the small network
        self.readings: dict[int, Reading] = {}

    def settle(self) -> list[Line]:
        """The line of every crop, once it is sure or nothing is left to try.

        A tall crop is also read turned. One that is doubtful is read in other views, and the surest of them decides:
        one whose colours hardly differ in grey as they differ most, a long or small one cut more closely and stretched,
        where that takes away a seventh of the doubt; one with much room around its line cut to it, where a third; a
        short one as if its text ran aslant or on an arc, where half; a strange one upside down, where nine tenths.
        """
        crops = self.crops
        wholes = [(i, crop.whole) for i, crop in enumerate(crops) if crop.whole is not None]
        turned = self._looks((i, view) for i, whole in wholes if _tall(crops[i]) for view in running_up_and_down(whole))
        if self.first:
            brief = [i for i, crop in enumerate(crops) if crop.pixels.shape[1] <= BRIEF]
            found = self.first([*(crops[i] for i in brief), *(look.crop for look in turned)])
            self.glances = {i: _if_no_word(crops[i], reading) for i, reading in zip(brief, found, strict=False)}
            self.readings = {i: glance for i, glance in self.glances.items() if _settled(crops[i], glance)}
            turned = self._best(turned, found[len(brief) :])
        left = [i for i in range(len(crops)) if i not in self.readings]
        found = self.read([*(crops[i] for i in left), *(look.crop for look in turned)])
        self.readings |= {i: _if_no_word(crops[i], reading) for i, reading in zip(left, found, strict=False)}
        self._choose(turned, found[len(left) :])

        unsure = self._doubtful(wholes)
        strange = [(i, whole) for i, whole in unsure if self.readings[i].sure < STRANGE and not _tall(crops[i])]
        kinds = self._promising(
            self._looks((i, view) for i, whole in unsure for view in by_colour(whole)),
            self._looks((i, view) for i, whole in unsure for view in _seen_otherwise(crops[i], whole)),
            self._looks((i, view) for i, whole in strange for view in upside_down(whole)),
        )
        coloured, otherwise, overturned = zip(kinds, _read_together(self.read, kinds), strict=True)
        self._choose(*coloured)
        doubtful = {i for i, _ in self._doubtful(unsure)}
        for looks, readings in (otherwise, overturned):
            kept = [(look, reading) for look, reading in zip(looks, readings, strict=True) if look.of in doubtful]
            self._choose([look for look, _ in kept], [reading for _, reading in kept])
        return [self.readings[i].line for i in range(len(crops))]

    def _doubtful(self, wholes: list[tuple[int, image.Image]]) -> list[tuple[int, image.Image]]:
        return [(i, whole) for i, whole in wholes if _doubtful(self.crops[i], self.readings[i])]

    def _looks(self, views: Iterable[tuple[int, View]]) -> list[_Look]:
        return [_Look(i, view, self.prepare(view, self.crops[i].path)) for i, view in views]

    def _promising(self, *kinds: list[_Look]) -> list[list[_Look]]:
        """Of each kind those that the large network is to read."""
        if not self.first:
            return list(kinds)
        glanced = [[look for look in looks if look.of in self.glances] for looks in kinds]
        best = [self._best(*each) for each in zip(glanced, _read_together(self.first, glanced), strict=True)]
        return [
            each + [look for look in looks if look.of not in self.glances]
            for each, looks in zip(best, kinds, strict=True)
        ]

    def _best(self, looks: Sequence[_Look], glances: Sequence[Reading]) -> list[_Look]:
        """Of each crop the views in which the small network is surest, and nearly as sure as of the crop itself."""
        sure: dict[int, list[tuple[float, _Look]]] = defaultdict(list)
        for look, glance in zip(looks, glances, strict=True):
            if (promise := _promise(glance)) > _promise(self.glances[look.of]) - PROMISING:
                sure[look.of].append((promise, look))
        best = [nlargest(VIEWS, each, key=itemgetter(0)) for each in sure.values()]
        return [look for each in best for _, look in each]

    def _choose(self, looks: Sequence[_Look], found: Sequence[Reading]) -> None:
        """The surest line in a view of a crop becomes its line if it takes away enough of the doubt."""
        before = {look.of: self.readings[look.of].sure for look in looks}
        surest = {i: sure - NEARLY for i, sure in before.items()}  # of any view
        while looks:
            onward: dict[int, View] = {}
            for look, reading in zip(looks, found, strict=True):
                i, view, line, sure = look.of, look.view, reading.line, reading.sure
                enough = sure > max(self.readings[i].sure, before[i] + view.taken * (1 - before[i]))
                if enough and len(line.text) >= view.least:
                    self.readings[i] = Reading(_seen_back(line, view, self.crops[i]), sure)
                if sure > surest[i]:
                    onward[i], surest[i] = view, sure
            [looks] = self._promising(self._looks((i, each) for i, view in onward.items() for each in view.further()))
            found = self.read([look.crop for look in looks])


def _read_together(read: Read, kinds: Sequence[Sequence[_Look]]) -> list[list[Reading]]:
    """The readings of several kinds of views, in one batch."""
    found = iter(read([look.crop for looks in kinds for look in looks]))
    return [list(islice(found, len(looks))) for looks in kinds]


def _tall(crop: Crop) -> bool:
    return crop.height > TALL * crop.width


def _settled(crop: Crop, glance: Reading) -> bool:
    line = glance.line
    return bool(line.text) and line.confidence > SETTLED and not _doubtful(crop, glance) and not _tall(crop)


def _doubtful(crop: Crop, reading: Reading) -> bool:
    return reading.sure < (UNSURE_LONG if crop.width > LONG * crop.height else UNSURE)


def _promise(glance: Reading) -> float:
    """How sure the small network is of a text; that it sees none says little of what the large one will."""
    return glance.sure if glance.line.text else 0.0


def _if_no_word(crop: Crop, reading: Reading) -> Reading:
    """The reading, unsure where it is a stroke that is as wide as a word that climbs or falls steeply."""
    stroke = reading.line.text in ("/", "\\") and crop.width > STROKE * crop.height
    return replace(reading, sure=min(reading.sure, 0.5)) if stroke else reading


def _compact(crop: Crop) -> bool:
    """Neither too small nor so long that its text can only run along it."""
    short, long = sorted((crop.width, crop.height))
    return short >= LEAST and long <= LONG * short


def _seen_otherwise(crop: Crop, whole: image.Image) -> Iterator[View]:
    if _compact(crop):
        yield from aslant_and_bent(whole)
    elif not _tall(crop):
        yield from closer(whole)
    yield from cut_out(whole)


def _seen_back(line: Line, view: View, crop: Crop) -> Line:
    """A line read in a view, its boxes where the characters are in the crop itself."""
    assert crop.whole is not None
    rows, columns = crop.whole.shape[:2]
    scale, size = (crop.width / columns, crop.height / rows), (crop.width, crop.height)
    return replace(
        line, characters=tuple(replace(each, box=view.box_back(each.box, scale, size)) for each in line.characters)
    )
