"""Images that look like anatomy, drawn from ellipses and noise.

Good enough to see at a glance whether a viewer shows the right study the right way up: each one
has a left and a right, a front and a back. All arrays are ``(frames, rows, columns)``, axis 0 is
the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """A filled ellipse; lengths in units of half the image, angle in degrees."""

    x: float
    y: float
    half_width: float
    half_height: float
    value: float
    angle: float = 0.0


def _draw(size: int, shapes: tuple[Ellipse, ...], background: float) -> Image:
    """Paint `shapes` one over the other."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image: Image = np.full((size, size), background)
    for shape in shapes:
        turn = np.deg2rad(shape.angle)
        u = (x - shape.x) * np.cos(turn) + (y - shape.y) * np.sin(turn)
        v = (y - shape.y) * np.cos(turn) - (x - shape.x) * np.sin(turn)
        image[(u / shape.half_width) ** 2 + (v / shape.half_height) ** 2 <= 1] = shape.value
    return image


def _smooth(image: Image, passes: int = 1) -> Image:
    """Blur a little, as every detector does."""
    for _ in range(passes):
        for axis in (-1, -2):
            image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def ct_head(slices: int, size: int, seed: int) -> NDArray[np.int16]:
    """Head from skull base to crown in Hounsfield units, nose up, left side on the right."""
    noise = np.random.default_rng(seed)
    volume = []
    for height in np.linspace(-0.75, 0.9, slices):
        width = np.sqrt(max(1 - height**2, 0.05))
        shapes = [
            Ellipse(0, 0, 0.70 * width, 0.86 * width, 40),  # scalp
            Ellipse(0, 0, 0.66 * width, 0.82 * width, 1100),  # skull
            Ellipse(0, 0, 0.60 * width, 0.76 * width, 34),  # brain
            Ellipse(0, 0, 0.012, 0.70 * width, 60),  # falx
        ]
        if -0.2 < height < 0.5:
            shapes += [
                Ellipse(-0.10, -0.12, 0.05, 0.20, 6, 15),  # ventricles
                Ellipse(0.10, -0.12, 0.05, 0.20, 6, -15),
                Ellipse(0.10, 0.22, 0.05, 0.16, 6, 20),
                Ellipse(-0.10, 0.22, 0.05, 0.16, 6, -20),
            ]
        if height < -0.35:
            shapes += [
                Ellipse(-0.22, -0.50, 0.13, 0.12, 5),  # eyes
                Ellipse(0.22, -0.50, 0.13, 0.12, 5),
                Ellipse(0, -0.42, 0.06, 0.16, -900),  # nose
            ]
        if 0.0 < height < 0.35:
            shapes.append(Ellipse(0.30, 0.05, 0.10, 0.13, 68))  # a bleed on the patient's left
        volume.append(_smooth(_draw(size, tuple(shapes), -1000)))
    stack = np.stack(volume) + noise.normal(0, 6, (slices, size, size))
    return np.clip(stack, -1024, 3071).astype(np.int16)


def mr_brain(slices: int, size: int, seed: int) -> NDArray[np.uint16]:
    """T1-weighted brain: bright fat, grey cortex, white matter, dark fluid."""
    noise = np.random.default_rng(seed)
    volume = []
    for height in np.linspace(-0.5, 0.85, slices):
        width = np.sqrt(max(1 - height**2, 0.05))
        shapes = (
            Ellipse(0, 0, 0.72 * width, 0.88 * width, 900),  # fat of the scalp
            Ellipse(0, 0, 0.68 * width, 0.84 * width, 60),  # skull
            Ellipse(0, 0, 0.62 * width, 0.78 * width, 380),  # grey matter
            Ellipse(-0.27 * width, 0, 0.24 * width, 0.62 * width, 620, 4),  # white matter
            Ellipse(0.27 * width, 0, 0.24 * width, 0.62 * width, 620, -4),
            Ellipse(-0.09, -0.05, 0.05, 0.22 * width, 90, 10),  # ventricles
            Ellipse(0.09, -0.05, 0.05, 0.22 * width, 90, -10),
            Ellipse(0.33 * width, -0.28 * width, 0.08, 0.08, 820),  # a lesion, left frontal
        )
        volume.append(_smooth(_draw(size, shapes, 10), 2))
    stack = np.stack(volume) + np.abs(noise.normal(0, 14, (slices, size, size)))
    return np.clip(stack, 0, 4095).astype(np.uint16)


def cr_chest(rows: int, seed: int) -> NDArray[np.uint16]:
    """Chest from the front, heart on the patient's left; 12 bits, bone bright."""
    noise = np.random.default_rng(seed)
    shapes = [
        Ellipse(0, 0.15, 0.92, 1.1, 1900),  # trunk
        Ellipse(-0.42, 0.0, 0.30, 0.62, 700, 6),  # lungs
        Ellipse(0.42, 0.0, 0.30, 0.62, 700, -6),
        Ellipse(0.0, 0.0, 0.10, 1.0, 2500),  # spine
        Ellipse(0.16, 0.28, 0.26, 0.28, 2200, -25),  # heart
        Ellipse(-0.36, 0.78, 0.36, 0.22, 2300),  # diaphragm
        Ellipse(0.38, 0.82, 0.34, 0.20, 2300),
    ]
    image = _draw(rows, tuple(shapes), 150)
    for rib in range(8):
        y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : rows * 1j]
        arch = -0.62 + rib * 0.16 + 0.45 * (np.abs(x) - 0.15) ** 2
        on_rib = (np.abs(y - arch) < 0.018) & (np.abs(x) > 0.1) & (np.abs(x) < 0.78)
        image[on_rib] += 420
    image[int(rows * 0.06) : int(rows * 0.10), int(rows * 0.88) : int(rows * 0.91)] = 4000  # "L"
    image[int(rows * 0.09) : int(rows * 0.10), int(rows * 0.88) : int(rows * 0.94)] = 4000
    image = _smooth(image, 3) + noise.normal(0, 25, image.shape)
    return np.clip(image, 0, 4095).astype(np.uint16)[np.newaxis]


def us_heart(frames: int, rows: int, columns: int, seed: int) -> NDArray[np.uint8]:
    """Draw a beating heart in an ultrasound sector; grey, 8 bits."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : rows * 1j, -0.75 : 0.75 : columns * 1j]
    depth, direction = np.hypot(x, y), np.arctan2(x, y)
    in_sector = (depth < 0.96) & (np.abs(direction) < 0.62) & (depth > 0.05)
    speckle = noise.rayleigh(0.5, (rows, columns))
    film = []
    for frame in range(frames):
        beat = 0.5 + 0.5 * np.cos(2 * np.pi * frame / frames)
        tissue = np.full((rows, columns), 70.0)
        for cx, cy, r in ((-0.10, 0.42, 0.13), (0.13, 0.45, 0.10), (-0.08, 0.72, 0.10)):
            inside = np.hypot((x - cx) / 0.8, y - cy) < r * (0.75 + 0.35 * beat)
            wall = np.hypot((x - cx) / 0.8, y - cy) < r * (0.75 + 0.35 * beat) + 0.035
            tissue[wall] = 160
            tissue[inside] = 8
        image = np.where(in_sector, tissue * (0.45 + speckle) * (1.1 - 0.6 * depth), 0)
        film.append(np.clip(image, 0, 255))
    return np.stack(film).astype(np.uint8)
