"""Slices of simulated patients: the lesion at close range, and the lung around it.

All variables that are visible in a slice are listed here. The image factor is visible only in the lesion's grain and
margin: in the fraction of its (constant) grey variance that is fine, and in whether its (constant) area has few lobes
or many spicules.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.fft
from scipy.special import expit

_PIXELS_AT_ONCE = 2**18
_BODY, _LUNG, _LESION, _HOLE = 120.0, 45.0, 125.0, 55.0
_GRAIN = 36.0
_WAVE = 0.13
_FINE_PER_FACTOR = 2.0
_LUNG_FIELD_CM = 24.0
_CENTRE_NOISE = {"A": 1.0, "B": 1.8, "C": 0.6, "D": 1.4, "E": 2.0}


def draw_slices(
    patients: pd.DataFrame,
    shown_factor: np.ndarray,
    n_slices: np.ndarray,
    image_size: int,
    rng: np.random.Generator,
    centre_shift: float = 0.0,
) -> dict[str, np.ndarray]:
    """Draw all slices of all patients.

    Parameters
    ----------
    patients : pandas.DataFrame of shape (n_patients, ...)
        As :func:`mmdls.datasets._patients.draw_patients` makes them.
    shown_factor : ndarray of shape (n_patients,)
        What grain and margin show, standard normal.
    n_slices : ndarray of int, shape (n_patients,)
    image_size : int
        Height and width in pixels.
    rng : numpy.random.Generator
    centre_shift : float, default=0.0
        How far the centres differ in grey noise.

    Returns
    -------
    dict of str to ndarray of shape (n_slices.sum(), image_size, image_size)
        ``lesion_image`` and ``lung_image`` (uint8); ``core``, the lesion's pixels in ``lesion_image``;
        ``lung_mask`` and ``lesion_mask``, the pixels of both in ``lung_image`` (bool). Patients follow one
        another.
    """
    of = np.repeat(np.arange(len(patients)), n_slices)
    noisiness = np.array([_CENTRE_NOISE[centre] for centre in patients["centre"]]) ** centre_shift
    first = np.repeat(np.cumsum(n_slices) - n_slices, n_slices)
    height = (np.arange(len(of)) - first + 0.5) / n_slices[of] * 2 - 1
    diameter = patients["diameter"].to_numpy()[of] * np.sqrt(1 - (0.75 * height) ** 2)
    grey = _LESION + 15 * np.clip((patients["log_suv"].to_numpy()[of] - np.log(10)) / 0.6, -2, 2)
    lusc = patients["lusc"].to_numpy()
    halo = (rng.random(len(patients)) < np.where(lusc, 0.1, 0.5))[of]
    cavity = (rng.random(len(patients)) < np.where(lusc, 0.3, 0.04))[of]
    fine = expit(_FINE_PER_FACTOR * shown_factor)[of]
    place = _place_in_lung(lusc, rng)[:, of]
    emphysema = expit((patients["smoking_duration"].to_numpy() - 40) / 10 + rng.normal(0, 1, len(patients)))[of]

    looks = pd.DataFrame(
        {
            "diameter": diameter,
            "grey": grey,
            "noise": 4 * noisiness[of],
            "fine": fine,
            "halo": halo,
            "cavity": cavity,
            "y": place[0],
            "x": place[1],
            "emphysema": emphysema,
        }
    ).astype(np.float32)
    shape = (len(of), image_size, image_size)
    slices = {name: np.empty(shape, np.uint8) for name in ("lesion_image", "lung_image")}
    slices |= {name: np.empty(shape, bool) for name in ("core", "lung_mask", "lesion_mask")}
    for part in _parts(len(of), image_size):
        look = {name: column.to_numpy()[:, None, None] for name, column in looks.iloc[part].items()}
        for name, pixels in (_lesion(image_size, look, rng) | _lung(image_size, look, rng)).items():
            slices[name][part] = pixels
    return slices


def _lesion(size: int, look: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The lesion fills its patch: the field of view grows with the lesion, if less than in proportion."""
    n = len(look["diameter"])
    radius = np.minimum(0.22 * look["diameter"] ** 0.35, 0.44) * size
    y, x = _grid(size, size / 2 + size * rng.normal(0, 0.03, (2, n)))
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    turn = rng.uniform(0, 2 * np.pi, (4, n, 1, 1)).astype(np.float32)
    lobes = np.cos(2 * angle + turn[0]) + np.cos(3 * angle + turn[1])
    spicules = np.cos(7 * angle + turn[2]) + np.cos(8 * angle + turn[3])
    wave = np.sqrt(1 - look["fine"]) * lobes + np.sqrt(look["fine"]) * spicules
    edge = radius * (1 + _WAVE * wave) / math.sqrt(1 + _WAVE**2)  # the wave leaves the area as it is
    inside = expit((edge - distance) / (0.025 * size))
    core = inside > 0.5

    image = _LUNG + 9 * _grain(rng, n, size, 0.2)
    image += 30 * look["halo"] * expit((1.35 * edge - distance) / (0.05 * size))
    texture = _standardised(_grain(rng, n, size, look["fine"]), core)
    image += inside * (look["grey"] + _GRAIN * texture - image)
    hole = look["cavity"] * expit((0.3 * radius - distance) / (0.025 * size))
    image += hole * (_HOLE - image)
    return {"lesion_image": _to_uint8(image, look["noise"], rng), "core": core}


def _lung(size: int, look: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One lung in the chest wall, with holes where emphysema is and the lesion in its true place and size."""
    n = len(look["diameter"])
    y, x = _grid(size, np.full((2, n), size / 2))
    half_y, half_x = 0.45 * size, 0.36 * size
    tilt = rng.normal(0, 0.1, (n, 1, 1)).astype(np.float32)
    lung_distance = np.hypot((x + tilt * y) / half_x, y / half_y)
    in_lung = expit((1 - lung_distance) / 0.04)
    tissue, wall, air = (_grain(rng, n, size, fine) for fine in (0.35, 0.5, 0.0))
    image = _LUNG + 7 * tissue + 45 * np.maximum(tissue - 1.2, 0)  # the brightest grains are vessels
    image -= 32 * expit(4 * (air - 1.5 + 1.2 * look["emphysema"]))
    image += (1 - in_lung) * (_BODY + 5 * wall - image)

    radius = look["diameter"] / 2 / _LUNG_FIELD_CM * size
    distance = np.hypot(x - look["x"] * half_x, y - look["y"] * half_y)
    nodule = expit((radius - distance) / (0.015 * size))
    image += nodule * (look["grey"] - image)
    lesion_mask = nodule > 0.5
    return {
        "lung_image": _to_uint8(image, look["noise"], rng),
        "lung_mask": (lung_distance < 1) | lesion_mask,
        "lesion_mask": lesion_mask,
    }


def _place_in_lung(lusc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Squamous tumours lean to the hilum, adenocarcinomas to the periphery: (2, n) in half axes."""
    reach = np.where(lusc, rng.beta(2, 3, len(lusc)), rng.beta(3, 2, len(lusc))) * 0.8
    angle = rng.uniform(-np.pi / 2, np.pi / 2, len(lusc))
    return np.stack([reach * np.sin(angle), reach * np.cos(angle) - 0.1])


def _grain(rng: np.random.Generator, n: int, size: int, fine: np.ndarray | float) -> np.ndarray:
    """Gaussian grain of unit variance, (n, size, size); ``fine`` is the fraction of variance in its fine part.

    Wavelengths scale with the image: the coarse part lies above a fifth of its width, the fine part around a
    tenth.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size
    coarse_band = np.exp(-((frequency / 4.0) ** 2))
    fine_band = np.exp(-(((frequency - 12.0) / 2.5) ** 2))
    coarse_band[0, 0] = fine_band[0, 0] = 0
    doubled = np.full(frequency.shape, 2.0)
    doubled[:, 0] = 1
    if size % 2 == 0:
        doubled[:, -1] = 1
    coarse_band, fine_band = (band * size**2 / (band * doubled).sum() for band in (coarse_band, fine_band))
    amplitude = np.sqrt((1 - fine) * coarse_band + fine * fine_band).astype(np.float32)
    noise = rng.standard_normal((n, size, size), dtype=np.float32)
    return scipy.fft.irfft2(scipy.fft.rfft2(noise) * amplitude, s=(size, size))


def _standardised(field: np.ndarray, within: np.ndarray) -> np.ndarray:
    """The field with mean 0 and variance 1 over the pixels of each slice that are ``within``."""
    count = np.maximum(within.sum(axis=(1, 2), keepdims=True), 1)
    mean = (field * within).sum(axis=(1, 2), keepdims=True) / count
    field = field - mean
    return field / np.sqrt((field**2 * within).sum(axis=(1, 2), keepdims=True) / count + 1e-6)


def _grid(size: int, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres relative to ``centre`` (2, n), broadcast to (n, size, size)."""
    pixel = np.arange(size) + 0.5
    y = (pixel[None, :, None] - centre[0][:, None, None]).astype(np.float32)
    x = (pixel[None, None, :] - centre[1][:, None, None]).astype(np.float32)
    shape = np.broadcast_shapes(y.shape, x.shape)
    return np.broadcast_to(y, shape), np.broadcast_to(x, shape)


def _to_uint8(image: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _parts(n: int, size: int) -> Iterator[slice]:
    """Runs of slices small enough to stay in the processor's cache."""
    step = max(1, _PIXELS_AT_ONCE // size**2)
    for start in range(0, n, step):
        yield slice(start, start + step)
