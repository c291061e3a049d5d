"""What the images of a data set look like, and how an image from elsewhere is made to look like them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

Pixels = NDArray[np.uint8]
"""(H, W, C)."""
Grey = NDArray[Any]
"""(H, W) floating-point values in [0, 1]."""
Spread = tuple[float, float]
"""Mean and standard deviation over the images of a set."""

MEASURED = 1000
"""Training images that are looked at."""
UNLIKE = 6.0
"""Standard deviations from the mean beyond which an image is unlike those of a set."""
LEAST_SPREAD = 0.02
"""Of a set whose images hardly differ, that small differences do not count."""
STROKES = 200
"""Images whose lines are measured."""
FINE = 8
"""Parts of a pixel in which ink is drawn before it is scaled to the box."""
INK = 0.2
"""How far from the background, in [0, 1], a pixel belongs to what is drawn."""


@dataclass(frozen=True)
class Appearance:
    """What grey versions of images in [0, 1] have in common: means and deviations over a set.

    Args:
        brightness: mean of an image.
        contrast: standard deviation within an image.
        border: mean of its outermost pixels.
        box: for sets that are prepared as MNIST is (ink on an even background, its centre of mass in the
            middle): the longer side of the ink, in pixels; else None.
        stroke: width of the lines in such images, in pixels.
    """

    brightness: Spread
    contrast: Spread | None = None
    border: Spread | None = None
    box: int | None = None
    stroke: Spread | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, images: NDArray[np.uint8]) -> "Appearance":
        """Measure (N, C, H, W) images."""
        grey = images.mean(axis=1) / 255
        features = np.array([_features(image) for image in grey])
        brightness, contrast, border = ((float(values.mean()), float(values.std())) for values in features.T)
        box = _box(grey, *border) if images.shape[1] == 1 else None
        stroke = None
        if box:
            inks = [_ink(image, border[0]) for image in grey[:STROKES]]
            cut = [ink[place] for ink in inks if (place := _bounds(ink))]
            widths = np.array([_stroke(_resize(ink, box * FINE)) for ink in cut]) / FINE
            stroke = float(widths.mean()), float(widths.std())
        return cls(brightness, contrast, border, box, stroke)

    def distance(self, image: Pixels) -> float:
        """How many standard deviations an image is off, in that in which it is most."""
        grey = image.mean(axis=-1) / 255
        pairs = zip(_features(grey), (self.brightness, self.contrast, self.border), strict=True)
        return max(abs(value - s[0]) / max(s[1], LEAST_SPREAD) for value, s in pairs if s)

    def prepare(
        self, image: Pixels, size: tuple[int, int], invert: bool | None, center: bool | None
    ) -> "Prepared":
        """Make an image of any size one of ``size`` = (height, width) that looks like those of the set.

        It is scaled to cover ``size`` and its centre cropped; or, to be centred, its ink is cut out, scaled
        to the set's ``box`` and moved until its centre of mass is in the middle.

        Args:
            image: what to prepare.
            size: of what comes out.
            invert: whether to turn dark and light; None = if it then is much more like the set.
            center: whether to centre ink; None = in a set that has a ``box``, unless the image is like those
                of the set as it is.
        """
        plain = _fit(image, size)
        off = self.distance(plain)
        turned = invert
        if turned is None:
            turned = off > UNLIKE and 2 * self.distance(255 - plain) < off
        image, plain = (255 - image, 255 - plain) if turned else (image, plain)
        changes = ["inverted"] if turned else []
        if center is None:
            center = self.box is not None and not (
                image.shape[:2] == size and self._is_prepared(plain[..., 0])
            )
        if center and (centred := self._center(image, size)) is not None:
            plain = centred
            changes.append("centred")
        return Prepared(plain, tuple(changes), self.distance(plain) > UNLIKE)

    def _is_prepared(self, grey: NDArray[np.uint8]) -> bool:
        ink = _ink(grey / 255, self._background)
        place = _bounds(ink)
        if place is None or self.box is None:
            return True
        return max(_lengths(place)) <= self.box + 1 and _off_centre(ink) <= 1

    @property
    def _background(self) -> float:
        return self.border[0] if self.border else 0.0

    def _center(self, image: Pixels, size: tuple[int, int]) -> Pixels | None:
        """See :meth:`prepare`; None if there is no ink."""
        grey = image.mean(axis=-1) / 255
        border = _border(grey)
        background = float(np.median(border))
        # twice the noise of paper is no ink
        noise = 2 * float(np.quantile(np.abs(border - background), 0.9))
        ink = (_ink(grey, background) - noise).clip(0) / (1 - noise or 1)
        if not ink.max() > 0 or (place := _bounds(ink / ink.max())) is None:
            return None
        box = self.box or round(min(size) * 20 / 28)
        ink = _resize(ink[place] / ink.max(), box * FINE)
        if self.stroke:
            mean, std = self.stroke
            width = _stroke(ink) / FINE
            ink = _thicken(ink, FINE * (mean - width if abs(mean - width) > std else 0))
        small = _resize(ink[_bounds(ink) or slice(None)], box)
        height, width = small.shape
        canvas = np.zeros(size, np.float32)
        row, column = (
            min(max(0, round(whole / 2 - middle)), whole - part)
            for whole, middle, part in zip(size, _center_of_mass(small), small.shape, strict=True)
        )
        canvas[row : row + height, column : column + width] = small / small.max()
        grey = self._background + (1 - 2 * self._background) * canvas
        return np.repeat(np.rint(255 * grey.clip(0, 1)).astype(np.uint8)[..., None], image.shape[2], axis=2)


@dataclass(frozen=True)
class Prepared:
    """An image that was made to look like those of a set."""

    pixels: Pixels
    changes: tuple[str, ...]
    """``inverted``, ``centred`` or both."""
    is_unlike: bool
    """Whether it is still unlike them."""


def _features(grey: Grey) -> tuple[float, float, float]:
    return float(grey.mean()), float(grey.std()), float(_border(grey).mean())


def _border(grey: Grey) -> Grey:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _ink(grey: Grey, background: float) -> Grey:
    """How much lighter than a dark background a pixel is, or darker than a light one, in [0, 1]."""
    away = grey - background if background < 0.5 else background - grey
    return (away / max(background, 1 - background)).clip(0, 1)


def _bounds(ink: Grey) -> tuple[slice, slice] | None:
    mask = ink > INK
    if not mask.any():
        return None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _lengths(place: tuple[slice, slice]) -> tuple[int, int]:
    rows, columns = place
    return rows.stop - rows.start, columns.stop - columns.start


def _resize(ink: Grey, longer_side: int) -> Grey:
    scale = longer_side / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), how)).clip(0, 1)


def _stroke(ink: Grey) -> float:
    """Width of the lines, in pixels: their area to half of their circumference."""
    mask = np.pad(ink > 0.5, 1)
    edge = mask & ~ndimage.binary_erosion(mask)
    return 2 * float(mask.sum() / max(1, edge.sum()))


def _thicken(ink: Grey, pixels: float) -> Grey:
    """Lines that are wider by so many pixels, or narrower."""
    padding = max(1, int(np.ceil(pixels / 2)) + 1)
    mask = np.pad(ink > 0.5, padding)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    wider = (inside - outside + pixels / 2 + 0.5).clip(0, 1)
    return wider if wider.any() else ink


def _center_of_mass(ink: Grey) -> tuple[float, float]:
    total = ink.sum()
    return float(ink.sum(1) @ np.arange(ink.shape[0]) / total), float(
        ink.sum(0) @ np.arange(ink.shape[1]) / total
    )


def _off_centre(ink: Grey) -> float:
    """Pixels between the centre of mass and the middle, along the axis where they are more."""
    return float(max(abs(at - side / 2) for at, side in zip(_center_of_mass(ink), ink.shape, strict=True)))


def _box(grey: Grey, border: float, spread: float) -> int | None:
    """The longer side of the ink, if the images are prepared as MNIST's are."""
    if min(border, 1 - border) > INK / 4 or spread > INK / 4:
        return None
    inks = [ink for ink in (_ink(image, border) for image in grey) if _bounds(ink)]
    sides = [max(_lengths(place)) for ink in inks if (place := _bounds(ink))]
    is_prepared = inks and np.quantile([_off_centre(ink) for ink in inks], 0.95) <= 1
    # what fills its image was not put into a box
    return round(float(np.median(sides))) if is_prepared and max(sides) < min(grey.shape[1:]) else None


def _fit(image: Pixels, size: tuple[int, int]) -> Pixels:
    if image.shape[:2] == size:
        return image
    pixels = Image.fromarray(image if image.shape[2] > 1 else image[..., 0])
    fitted = np.asarray(ImageOps.fit(pixels, size[::-1], Image.Resampling.BILINEAR))
    return fitted if fitted.ndim == 3 else fitted[..., None]
