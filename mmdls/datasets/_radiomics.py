"""Radiomics of simulated lesions: grey histogram and area of the drawn slices, and noisy correlates.

Texture and margin are left out on purpose, so that the image factor can be learned only from the slices.
"""

import numpy as np

MEASURED = (
    "mean",
    "variance",
    "skewness",
    "kurtosis",
    "percentile_10",
    "median",
    "percentile_90",
    "interquartile_range",
    "entropy",
    "uniformity",
    "energy",
    "mean_area",
    "largest_area",
    "smallest_area",
)


def radiomics(
    n_features: int,
    slices: np.ndarray,
    core: np.ndarray,
    n_slices: np.ndarray,
    log_diameter: np.ndarray,
    log_suv: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Measure the lesions, and fill up with correlates of size and uptake.

    The first columns are :data:`MEASURED` on the lesion's pixels; each further one is a mixture of the
    logarithms of diameter and SUVmax with as much noise, in proportions that turn from column to column.

    Returns
    -------
    ndarray of shape (n_patients, n_features)
    """
    noise = rng.standard_normal((len(n_slices), max(n_features - len(MEASURED), 0)))
    turn = np.arange(noise.shape[1])
    size, uptake = (log_diameter - 1.3) / 0.5, (log_suv - 2.3) / 0.6
    correlates = 0.7 * (np.outer(size, np.cos(turn)) + np.outer(uptake, np.sin(turn)) + noise)
    return np.column_stack([_measure(slices, core, n_slices), correlates])[:, :n_features]


def _measure(slices: np.ndarray, core: np.ndarray, n_slices: np.ndarray) -> np.ndarray:
    of = np.repeat(np.arange(len(n_slices)), n_slices)
    code = of[:, None, None] * 256 + slices
    counts = np.bincount(code[core], minlength=len(n_slices) * 256).reshape(-1, 256).astype(float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    grey = np.arange(256.0)
    mean = share @ grey
    centred = grey - mean[:, None]
    variance = (share * centred**2).sum(axis=1)
    spread = np.sqrt(np.maximum(variance, 1e-12))
    cumulative = share.cumsum(axis=1)
    quantile = {q: (cumulative < q).sum(axis=1) for q in (0.1, 0.25, 0.5, 0.75, 0.9)}
    entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
    area = core.mean(axis=(1, 2))
    first = np.cumsum(n_slices) - n_slices
    return np.column_stack(
        [
            mean,
            variance,
            (share * centred**3).sum(axis=1) / spread**3,
            (share * centred**4).sum(axis=1) / spread**4,
            quantile[0.1],
            quantile[0.5],
            quantile[0.9],
            quantile[0.75] - quantile[0.25],
            entropy,
            (share**2).sum(axis=1),
            counts @ grey**2,
            np.add.reduceat(area, first) / n_slices,
            np.maximum.reduceat(area, first),
            np.minimum.reduceat(area, first),
        ]
    )
