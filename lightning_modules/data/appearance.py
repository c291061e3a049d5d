"""What the images of a data set look like, and how an image from elsewhere is made to look like them."""

import hashlib
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

_known: dict[tuple[tuple[int, ...], bytes], "Appearance"] = {}


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
        """Measure (N, C, H, W) images, those that the jobs of a sweep share once."""
        key = images.shape, hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16).digest()
        if key not in _known:
            _known[key] = cls._measured(images)
        return _known[key]

    @classmethod
    def _measured(cls, images: NDArray[np.uint8]) -> "Appearance":
        grey = images.mean(axis=1) / 255
        features = np.array([_features(image) for image in grey])
        brightness, contrast, border = (_spread(values) for values in features.T)
        box = _box(grey, *border) if images.shape[1] == 1 else None
        if not box:
            return cls(brightness, contrast, border)
        inks = [_ink(image, border[0]) for image in grey[:STROKES]]
        widths = [_stroke(_resize(ink[place], box * FINE)) / FINE for ink in inks if (place := _bounds(ink))]
        return cls(brightness, contrast, border, box, _spread(np.array(widths)))

    def distance(self, image: Pixels) -> float:
        """How many standard deviations an image is off, in that in which it is most."""
        known = self.brightness, self.contrast, self.border
        pairs = zip(_features(image.mean(axis=-1) / 255), known, strict=True)
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
        plain, changes = _fit(image, size), []
        if invert is None:
            off = self.distance(plain)
            invert = off > UNLIKE and 2 * self.distance(255 - plain) < off
        if invert:
            image, plain = 255 - image, 255 - plain
            changes.append("inverted")
        if center is None:
            center = self.box is not None and (image.shape[:2] != size or not self._is_prepared(plain))
        if center and (centred := self._center(image, size)) is not None:
            plain = centred
            changes.append("centred")
        return Prepared(plain, tuple(changes), self.distance(plain) > UNLIKE)

    def _is_prepared(self, image: Pixels) -> bool:
        ink = _ink(image[..., 0] / 255, self._background)
        place = _bounds(ink)
        return not (place and self.box) or (_longer(place) <= self.box + 1 and _off_centre(ink) <= 1)

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
        canvas = np.zeros(size, np.float32)
        at = tuple(
            slice(start := min(max(0, round(whole / 2 - middle)), whole - part), start + part)
            for whole, middle, part in zip(size, ndimage.center_of_mass(small), small.shape, strict=True)
        )
        canvas[at] = small / small.max()
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


def _spread(values: Grey) -> Spread:
    return float(values.mean()), float(values.std())


def _features(grey: Grey) -> tuple[float, float, float]:
    return *_spread(grey), float(_border(grey).mean())


def _border(grey: Grey) -> Grey:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _ink(grey: Grey, background: float) -> Grey:
    """How much lighter than a dark background a pixel is, or darker than a light one, in [0, 1]."""
    away = grey - background if background < 0.5 else background - grey
    return (away / max(background, 1 - background)).clip(0, 1)


def _bounds(ink: Grey) -> tuple[slice, slice] | None:
    """The smallest rectangle that holds all ink."""
    return next(iter(ndimage.find_objects((ink > INK).astype(int))), None)


def _longer(place: tuple[slice, slice]) -> int:
    return max(int(side.stop - side.start) for side in place)


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
    mask = np.pad(ink > 0.5, max(1, int(np.ceil(pixels / 2)) + 1))
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    wider = (inside - outside + pixels / 2 + 0.5).clip(0, 1)
    return wider if wider.any() else ink


def _off_centre(ink: Grey) -> float:
    """Pixels between the centre of mass and the middle, along the axis where they are more."""
    middles = ndimage.center_of_mass(ink)
    return float(max(abs(at - side / 2) for at, side in zip(middles, ink.shape, strict=True)))


def _box(grey: Grey, border: float, spread: float) -> int | None:
    """The longer side of the ink, if the images are prepared as MNIST's are."""
    if min(border, 1 - border) > INK / 4 or spread > INK / 4:
        return None
    found = [
        (_longer(place), _off_centre(ink))
        for ink in (_ink(image, border) for image in grey)
        if (place := _bounds(ink))
    ]
    if not found:
        return None
    sides, off = np.array(found).T
    # what fills its image was not put into a box
    is_prepared = np.quantile(off, 0.95) <= 1 and sides.max() < min(grey.shape[1:])
    return round(float(np.median(sides))) if is_prepared else None


def _fit(image: Pixels, size: tuple[int, int]) -> Pixels:
    if image.shape[:2] == size:
        return image
    pixels = Image.fromarray(image if image.shape[2] > 1 else image[..., 0])
    fitted = np.asarray(ImageOps.fit(pixels, size[::-1], Image.Resampling.BILINEAR))
    return fitted.reshape(*size, -1)
