"""What a camera, a scanner or a screen does to a crop. Every operation keeps the label true.

Images are uint8 (H, W, 3). Randomness comes from the caller: `rng` for single numbers; noise is cut at a random place
from one fixed field, which is many times cheaper than fresh noise and the same in every process.
"""

from __future__ import annotations

import random
from functools import lru_cache

import cv2
import numpy as np


@lru_cache(maxsize=1)
def _noise_field() -> np.ndarray:
    """(512, 2048, 3) float32, standard normal, from a fixed seed."""
    return np.random.default_rng(1507).standard_normal((512, 2048, 3), np.float32)


def noise(shape: tuple[int, int], rng: random.Random) -> np.ndarray:
    """(H, W, 3) standard normal."""
    field = _noise_field()
    height, width = shape
    if height > field.shape[0] or width > field.shape[1]:
        field = np.tile(field, (height // field.shape[0] + 1, width // field.shape[1] + 1, 1))
    y = rng.randrange(field.shape[0] - height + 1)
    x = rng.randrange(field.shape[1] - width + 1)
    return field[y : y + height, x : x + width]


def add_noise(image: np.ndarray, rng: random.Random, most: float = 22.0) -> np.ndarray:
    strength = most * rng.random() ** 2
    grain = noise(image.shape[:2], rng)
    if rng.random() < 0.5:
        grain = grain[..., :1]  # the same in all channels
    if rng.random() < 0.3:
        grain = cv2.GaussianBlur(grain, (3, 3), 0)
        grain = grain.reshape(*image.shape[:2], -1) * 2
    return np.clip(image + grain * strength, 0, 255).astype(np.uint8)


# Rows of pixels below which Latin letters cannot be read; scripts of more strokes need more.
LEAST_ROWS = 9.0


def blur(image: np.ndarray, rng: random.Random, most: float = 0.055) -> np.ndarray:
    """Out of focus; sigma up to `most` of the height."""
    sigma = 0.2 + most * image.shape[0] * rng.random() ** 1.5
    return cv2.GaussianBlur(image, (0, 0), sigma)


def motion_blur(image: np.ndarray, rng: random.Random, most: float = 0.22) -> np.ndarray:
    length = int(2 + most * image.shape[0] * rng.random())
    kernel = np.zeros((length, length), np.float32)
    end = rng.randrange(length)
    if rng.random() < 0.5:
        cv2.line(kernel, (0, end), (length - 1, length - 1 - end), 1.0)
    else:
        cv2.line(kernel, (end, 0), (length - 1 - end, length - 1), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def lower_resolution(image: np.ndarray, rng: random.Random, least: float = LEAST_ROWS) -> np.ndarray:
    """Fewer pixels and back: never under `least` rows."""
    height, width = image.shape[:2]
    factor = rng.uniform(min(1.0, least / height), 0.9)
    small = (max(2, int(width * factor)), max(2, int(height * factor)))
    down = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_LINEAR
    up = rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST if factor > 0.6 else cv2.INTER_LINEAR))
    return cv2.resize(cv2.resize(image, small, interpolation=down), (width, height), interpolation=up)


def enlarge(image: np.ndarray, rng: random.Random, factor: float) -> np.ndarray:
    """More pixels than were taken: blocks, smooth or sharpened."""
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=rng.choice((cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)))


def jpeg(image: np.ndarray, rng: random.Random, worst: int = 18) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, rng.randint(worst, 92)))
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def tone(image: np.ndarray, rng: random.Random) -> np.ndarray:
    """Contrast, brightness and gamma in one table look-up; contrast is kept readable."""
    contrast = rng.uniform(0.45, 1.35)
    levels = np.linspace(0.0, 1.0, 256, dtype=np.float32) ** np.float32(rng.uniform(0.6, 1.6))
    levels = (levels - 0.5) * contrast + 0.5 + rng.uniform(-0.15, 0.15)
    return cv2.LUT(image, np.clip(levels * 255, 0, 255).astype(np.uint8))


def shade(image: np.ndarray, rng: random.Random, depth: float = 0.6) -> np.ndarray:
    """Uneven light: a soft gradient over the crop."""
    corners = np.array([[rng.uniform(1 - depth, 1.15), rng.uniform(1 - depth, 1.15)] for _ in range(2)], np.float32)
    light = cv2.resize(corners, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.clip(image * light[..., None], 0, 255).astype(np.uint8)


def degrade(
    image: np.ndarray, rng: random.Random, strength: float = 1.0, least: float = LEAST_ROWS, bears: float = 1.0
) -> np.ndarray:
    """A random chain of the above; strength scales how often each one strikes, `least` is how much detail must survive,
    `bears` how much of the usual noise and compression the script bears: 1 for Latin letters."""
    fine = LEAST_ROWS / least
    if rng.random() < 0.18 * strength:
        image = shade(image, rng)
    if rng.random() < 0.30 * strength:
        image = lower_resolution(image, rng, least)
    pick = rng.random()
    if pick < 0.35 * strength:
        image = blur(image, rng, 0.055 * fine)
    elif pick < 0.45 * strength:
        image = motion_blur(image, rng, 0.22 * fine)
    if rng.random() < 0.45 * strength:
        image = add_noise(image, rng, 22.0 * bears)
    if rng.random() < 0.35 * strength:
        image = tone(image, rng)
    if rng.random() < 0.40 * strength:
        image = jpeg(image, rng, round(18 / bears))
    return image


def augment(image: np.ndarray, rng: random.Random, strength: float = 1.0) -> np.ndarray:
    """A labelled crop seen slightly differently: moved, turned, sheared, stretched, recoloured and degraded."""
    height, width = image.shape[:2]
    least = LEAST_ROWS
    if rng.random() < 0.75 * strength:
        rotation, shear = rng.gauss(0, 0.05), rng.gauss(0, 0.12)
        stretch = min(1.4, max(0.62, 1 + rng.gauss(-0.03, 0.16)))
        zoom = rng.uniform(0.92, 1.06)
        jitter = 0.05 * min(height, width)
        out_height = height
        if rng.random() < 0.2:  # a line that runs up or down, cut out with room for its ends: letters halved at most
            rotation = rng.uniform(-1, 1) * min(0.5, height / width)
            out_height += round(abs(rotation) * width)
            least *= out_height / height
        else:  # Lines are long: the same angle would push their ends out of the picture.
            rotation *= min(1.0, 4 * height / width)
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        centre = np.array([width / 2, height / 2], np.float32)
        turn = np.array([[1.0, -shear - rotation], [rotation, 1.0]], np.float32) * zoom
        target = (corners - centre) @ turn.T + np.array(
            [[rng.uniform(-jitter, jitter), rng.uniform(-jitter, jitter)] for _ in range(4)], np.float32
        )
        out_width = max(4, int(width * stretch))
        target[:, 0] *= out_width / width
        target += np.array([out_width / 2, out_height / 2], np.float32)
        matrix = cv2.getPerspectiveTransform(corners, target.astype(np.float32))
        image = cv2.warpPerspective(image, matrix, (out_width, out_height), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.10 * strength:
        image = 255 - image
    if rng.random() < 0.12 * strength:
        image = np.ascontiguousarray(image[..., rng.choice(((2, 1, 0), (1, 0, 2), (0, 2, 1)))])
    return degrade(image, rng, 0.7 * strength, least)


def occlude(crop: np.ndarray, rng: random.Random) -> np.ndarray:
    """A strip about as wide as a letter smeared or covered: what stood there is told by the letters around it
    (Wang et al., VisionLAN, arXiv 2108.09661, hide whole characters for that). The ends stay: nobody could
    tell a letter hidden there from bare ground. So do narrow crops. crop: uint8 (H, W, C), what the network sees."""
    height, width = crop.shape[:2]
    wide = int(height * rng.uniform(0.2, 0.7))
    end = height // 2
    if width < max(4 * wide, 2 * end + wide + 1):
        return crop
    left = rng.randrange(end, width - wide - end)
    crop = crop.copy()
    strip = crop[:, left : left + wide]
    if rng.random() < 0.6:
        smeared = cv2.GaussianBlur(strip, (0, 0), height * rng.uniform(0.12, 0.35))
        strip[:] = smeared.reshape(strip.shape)
    else:
        grain = noise((height, wide), rng)[..., : crop.shape[2]] * rng.uniform(0, 40)
        strip[:] = np.clip(grain + rng.randrange(256), 0, 255).astype(np.uint8)
    return crop
