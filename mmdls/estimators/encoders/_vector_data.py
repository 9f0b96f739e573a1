"""The vectors of all patients: read from cells, checked, and gathered for a batch."""

from collections import Counter
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mmdls._files import check_npy
from mmdls.encoders import BagData
from mmdls.images import is_missing
from mmdls.images._files import check_places

__all__ = ["VectorData", "open_array"]


class VectorData(BagData):
    """The vectors of all patients. Make it with :meth:`read_column`.

    Parameters
    ----------
    bags : list of ndarray of shape (K, D) or None
        None = missing.
    n_features : int
        D.
    """

    items = "vectors"

    def __init__(self, bags: list[np.ndarray | None], n_features: int):
        super().__init__(np.array([0 if bag is None else len(bag) for bag in bags]), (n_features,))
        self.bags = bags

    @classmethod
    def read_column(
        cls, column: pd.Series, n_features: int | None = None, *, n_jobs: int | None = None, verbose: int = 0
    ) -> "VectorData":
        """Read the cells of a column.

        Parameters
        ----------
        column : pandas.Series of shape (n_patients,)
        n_features : int, default=None
            D, if it is known; otherwise it must be the same in all rows.
        n_jobs : int, default=None
            Threads.
        verbose : int, default=0
            1 shows a progress bar.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            If a cell holds no vectors, or vectors of another length; the message names the rows.
        """
        check_places(column, column.index, "vectors")
        work = (joblib.delayed(_read)(cell, f"column {column.name!r}, row {row!r}") for row, cell in column.items())
        bar = tqdm(total=len(column), desc="reading vectors", unit="patient", disable=not verbose, leave=False)
        bags: list[np.ndarray | None] = []
        with bar:
            for bag in joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(work):
                bags.append(bag)
                bar.update()
        widths = Counter(bag.shape[1] for bag in bags if bag is not None)
        known = n_features if n_features is not None else widths.most_common(1)[0][0] if widths else 1
        wrong = [(row, bag.shape[1]) for row, bag in zip(column.index, bags, strict=True) if bag is not None]
        wrong = [(row, width) for row, width in wrong if width != known]
        if wrong:
            usual = "in most rows" if n_features is None else "as in fit"
            raise ValueError(
                f"column {column.name!r} must hold vectors of {known} numbers, {usual}; those in rows "
                f"{[row for row, _ in wrong[:5]]} have {sorted({width for _, width in wrong})}. All must come from the "
                "same model; a bag is an array of shape (K, D), one vector a row."
            )
        return cls(bags, known)

    def read(self, index: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Some vectors as float32, (k, D)."""
        vectors = np.empty((len(index), *self.item_shape), dtype=np.float32)
        rows = np.searchsorted(self.offsets, index, side="right") - 1
        borders = np.flatnonzero(np.diff(rows)) + 1
        for part in np.split(np.arange(len(index)), borders) if len(index) else ():
            bag: Any = self.bags[rows[part[0]]]
            vectors[part] = bag[index[part] - self.offsets[rows[part[0]]]]
        return torch.from_numpy(vectors).to(device)

    def moments(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each number, (D,), all patients alike but for their weights.

        Parameters
        ----------
        weight : ndarray of shape (n_patients,)
        """
        counted = self.present & (weight > 0)
        if not counted.any():
            return np.zeros(self.item_shape), np.zeros(self.item_shape)
        bags: list[Any] = [self.bags[row] for row in np.flatnonzero(counted)]
        means = np.array([bag.mean(axis=0, dtype=np.float64) for bag in bags])
        mean = np.average(means, axis=0, weights=weight[counted])
        spread = np.array([bag.var(axis=0, dtype=np.float64) for bag in bags]) + (means - mean) ** 2
        return mean, np.sqrt(np.average(spread, axis=0, weights=weight[counted]))


def _read(cell: Any, where: str) -> np.ndarray | None:
    """One patient's vectors (K, D), None if missing."""
    if is_missing(cell):
        return None
    if isinstance(cell, str | PathLike):
        cell = open_array(cell, where)
    elif isinstance(cell, list | tuple):
        try:
            cell = np.asarray(cell, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: vectors of a list must have one length; got {cell!r:.80}.") from error
    if not isinstance(cell, np.ndarray):
        raise TypeError(
            f"{where}: expected vectors as an array of shape (K, D), a list of them, the path of a .npy file, or None "
            f"if missing; got {type(cell).__name__}."
        )
    if cell.ndim == 1:
        cell = cell[None]
    if cell.ndim != 2 or 0 in cell.shape:
        raise ValueError(
            f"{where}: vectors must have shape (K, D) with at least one vector; got {cell.shape}. Give None for a "
            "patient without vectors."
        )
    if cell.dtype.kind not in "buif":
        raise ValueError(f"{where}: vectors must hold numbers; got {cell.dtype}.")
    # Cast block by block, since a mapped file may be larger than the memory.
    with np.errstate(over="ignore"):
        blocks = (cell[start : start + 4096].astype(np.float32) for start in range(0, len(cell), 4096))
        bad = sum(int(np.sum(~np.isfinite(block).all(axis=1))) for block in blocks)
    if bad or isinstance(cell, np.ma.MaskedArray):
        raise ValueError(
            f"{where}: {bad} of {len(cell)} vectors hold NaN, infinite or masked numbers; repair or leave them out."
        )
    return cell


def open_array(path: str | PathLike, where: str) -> np.ndarray:
    """The array of a file, memory-mapped; ``where`` is the cell, for messages."""
    text = fspath(path)
    if not text.strip():
        raise ValueError(f"{where}: the path is empty; give the path of a .npy file, or None if missing.")
    if not Path(text).is_file():
        raise FileNotFoundError(f"{where}: no file {text!r}; correct the path, or give None if missing.")
    if Path(text).suffix.lower() != ".npy":
        raise ValueError(f"{where}: {text!r} is no .npy file; write the vectors with numpy.save.")
    try:
        check_npy(text)
        return np.load(text, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{where}: {text!r} is no array of numbers ({error}); write it with numpy.save.") from error
