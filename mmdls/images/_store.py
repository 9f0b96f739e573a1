"""All slices of a cohort in one contiguous array."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import joblib
import numpy as np
from tqdm.auto import tqdm

from mmdls._files import SEAL, is_sealed, new_folder, seal, whole_file
from mmdls.images._cutting import cut_out
from mmdls.images._files import check_places
from mmdls.images._fingerprint import fingerprint
from mmdls.images._hounsfield import check_units
from mmdls.images._masks import read_structure
from mmdls.images._reading import is_missing, read_image
from mmdls.images._settings import MaskArguments, as_size, as_window, check_label

if TYPE_CHECKING:
    import torch

__all__ = ["SliceStore"]

_FORMAT = 4

Reader = Callable[[Any, Any, Any], tuple[np.ndarray, np.ndarray | None, tuple[float, float] | None] | None]


class SliceStore:
    """All slices of all patients, one patient after the other, in one array.

    Built by :meth:`build`. ``len(store)`` is the number of patients.

    Parameters
    ----------
    data : ndarray or memmap of shape (N, H, W), or (N, C, H, W) for slices with channels
        uint8 (value / 255), or floats in [0, 1].
    counts : ndarray of shape (n,)
        Slices of each patient; 0 = image missing.
    mean, std : float
        Of all pixels, scaled to [0, 1].
    key : str
        Hash of contents and settings.

    Examples
    --------
    Three patients, of whom the second has no image:

    >>> images = [np.zeros((2, 32, 32), np.uint8), None, np.ones((4, 24, 32), np.uint8)]
    >>> store = SliceStore.build(images, image_size=16)
    >>> len(store), store.counts.tolist(), store.data.shape
    (3, [2, 0, 4], (6, 16, 16))
    """

    def __init__(self, data: np.ndarray, counts: np.ndarray, mean: float, std: float, key: str):
        self.data = data
        self.counts = np.asarray(counts, dtype=np.int64)
        self.present = self.counts > 0
        self.mean = mean
        self.std = std
        self.key = key
        self._cached: tuple[str, np.ndarray] | None = None
        self._folder: Path | None = None

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every slice."""
        return self.data.shape[-2], self.data.shape[-1]

    @classmethod
    def build(
        cls,
        images: Sequence[Any],
        masks: Sequence[Any] | None = None,
        patients: Sequence[Any] | None = None,
        image_size: int | tuple[int, int] | None = None,
        intensity_range: tuple[float, float] | None = None,
        max_image_size: int | None = None,
        max_slices: int | None = None,
        dtype: str = "auto",
        mask_label: int | str | Sequence[int] | None = None,
        resample_mask: bool = False,
        read: Reader | None = None,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> "SliceStore":
        """Read, window, crop and resize the images of a cohort.

        Parameters
        ----------
        images : sequence of n cells
            See :func:`read_image`; None or NaN = missing.
        masks : sequence of n cells, default=None
            Pixels outside the mask become 0, and the stack is cropped to the square around the mask with a margin of
            5%, padded where it extends beyond the image. The image of a patient without a mask stays whole.
        patients : sequence of n ids, default=None
            For messages.
        image_size : int or (int, int), default=None
            Resize with antialiasing; None keeps the size, which must then be the same for all.
        max_image_size : int, default=None
            Without ``image_size``: reduce slices whose longer side has more pixels until it has as many.
        intensity_range : (float, float), default=None
            Values mapped to [0, 1] and clipped. None keeps 8-bit greys and booleans, takes floats that lie in [0, 1],
            and refuses the rest. A window from below zero is one in HU: images that are not in HU are refused.
        max_slices : int, default=None
            Evenly spaced slices, the first and the last among them, kept of longer stacks.
        dtype : {"auto", "float16", "float32"}, default="auto"
            ``"auto"`` keeps 8-bit greys exactly and others in half precision.
        mask_label : int, sequence of int or str, default=None
            The values that are inside, of masks with several values; see :func:`read_mask`. A name is for ``read``.
        resample_mask : bool, default=False
            Resample NIfTI masks to the voxels of their images; see :func:`read_mask`.
        read : callable, default=None
            Reads the cells of one patient instead: ``read(image, mask, patient)`` gives the image, of shape (S, H, W)
            or (S, C, H, W), its mask or None, and its intensity range or None; or None where this class shall read.
            ``joblib.hash(read)`` tells its settings.
        memory : str or joblib.Memory, default=None
            A folder that caches the store, memory-mapped; it is reused while contents and settings are the same. The
            images are read one after the other into files there, so that a cohort may be larger than memory; until all
            are read, they take their place on the disk twice.
        n_jobs : int, default=None
            Threads that decode.
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        SliceStore
        """
        patients = list(range(len(images))) if patients is None else list(patients)
        masks = [None] * len(images) if masks is None else list(masks)
        image_size = None if image_size is None else as_size(image_size)
        intensity_range = None if intensity_range is None else as_window(intensity_range)
        if not isinstance(mask_label, str):
            check_label(mask_label, "mask_label")
        check_places(images, patients)
        pairs = zip(images, masks, strict=True)
        check_places([None if is_missing(image) else mask for image, mask in pairs], patients, "mask")
        _warn_of_partial_masks(images, masks, patients)
        settings = (image_size, max_image_size, intensity_range, max_slices, dtype, mask_label, resample_mask)
        root = getattr(memory, "location", memory)
        key = "" if root is None else _key(images, masks, patients, settings, read)
        folder = None if root is None else Path(root) / "mmdls-slices" / key
        if folder is not None and (store := cls._intact(folder)) is not None:
            return store
        work = (
            joblib.delayed(_prepare)(image, mask, patient, read, *settings)
            for image, mask, patient in zip(images, masks, patients, strict=True)
        )
        bar = tqdm(total=len(images), desc="reading images", unit="patient", disable=not verbose, leave=False)
        stacks: Iterator[np.ndarray | None] = joblib.Parallel(n_jobs, prefer="threads", return_as="generator")(work)
        with nullcontext() if folder is None else _building(folder) as place:
            with bar, _Stacks(place) as kept:
                for stack in stacks:
                    kept.append(stack)
                    bar.update()
                store = cls._join(kept, patients, image_size, dtype, key, place)
            return store if folder is None or place is None else store._move(place, folder)

    @classmethod
    def _join(
        cls,
        stacks: "_Stacks",
        patients: list,
        image_size: tuple[int, int] | None,
        dtype: str,
        key: str,
        place: Path | None,
    ) -> "SliceStore":
        """One array of all stacks: in memory, or in a file of a folder, for which one stack at a time is read."""
        counts = np.asarray([0 if each is None else each[0][0] for each in stacks.kinds], dtype=np.int64)
        real = [each for each in stacks.kinds if each is not None]
        if not real:
            empty = np.empty((0, *(image_size or (1, 1))), dtype=np.uint8)
            if place is not None:
                _write_array(place / "data.npy", empty)
            return cls(empty, counts, 0.0, 1.0, key)
        sizes = {each[0][1:]: patient for each, patient in zip(stacks.kinds, patients, strict=True) if each is not None}
        if len(sizes) > 1:
            raise ValueError(
                f"images have different sizes, for example { {p: s for s, p in list(sizes.items())[:3]} } by patient; "
                "pass image_size to bring all to one."
            )
        greys = [own == np.uint8 for _, own in real]
        exact, rounded = all(greys) and dtype == "auto", np.dtype(np.float16 if dtype == "auto" else dtype)
        # Beside others, greys stay exact too: a patient's numbers do not depend on the other patients'.
        kind = np.dtype(np.uint8 if exact else np.float32 if any(greys) and dtype == "auto" else rounded)
        shape, start, sums = (int(counts.sum()), *real[0][0][1:]), 0, np.zeros(2)

        def parts() -> Iterator[np.ndarray]:
            for stack in stacks:
                grey = stack.dtype == np.uint8
                scaled = stack / np.float32(255) if grey else stack
                sums[:] += scaled.sum(dtype=np.float64), np.square(scaled, dtype=np.float64).sum()
                yield stack if exact else scaled if grey else scaled.astype(rounded)

        if place is None:
            data = np.empty(shape, dtype=kind)
            for part in parts():
                data[start : start + len(part)] = part
                start += len(part)
        else:
            # Not through a map of the file: on a full disk that ends the process instead of raising an error.
            with (place / "data.npy").open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for part in parts():
                    file.write(part.astype(kind, copy=False).tobytes())
            seal(place / "data.npy")
            data = np.load(place / "data.npy", mmap_mode="r")
        mean, square = (sums / data.size).tolist()
        return cls(data, counts, mean, float(np.sqrt(max(square - mean**2, 0.0))), key)

    def _move(self, building: Path, folder: Path) -> "SliceStore":
        """Rename the folder of a whole store, so that an interrupted build never looks complete."""
        facts = {"counts": self.counts.tolist(), "mean": self.mean, "std": self.std, "key": self.key}
        (building / "store.json").write_text(json.dumps(facts))
        seal(building / "store.json")
        try:
            os.replace(building, folder)
        except OSError:
            # Another process has finished the same store in the meantime.
            if not (folder / "store.json").is_file():
                raise
        return self._open(folder)

    @classmethod
    def _intact(cls, folder: Path) -> "SliceStore | None":
        """The store of a folder; None if there is none, or if it is damaged, which is said, and the folder removed."""
        if not folder.is_dir():
            return None
        files = [folder / "store.json", folder / "data.npy"]
        if all(file.is_file() and is_sealed(file) for file in files):
            return cls._open(folder)
        warnings.warn(f"the kept slices in {str(folder)!r} are damaged; they are read anew.", stacklevel=3)
        _remove(folder)
        return None

    @classmethod
    def _open(cls, folder: Path) -> "SliceStore":
        facts = json.loads((folder / "store.json").read_bytes()[:-SEAL])
        data = np.load(folder / "data.npy", mmap_mode="r")
        store = cls(data, np.asarray(facts["counts"], dtype=np.int64), facts["mean"], facts["std"], facts["key"])
        store._folder = folder
        return store

    def __reduce__(self) -> tuple:
        if self._folder is not None:
            return SliceStore._open, (self._folder,)
        return SliceStore, (self.data, self.counts, self.mean, self.std, self.key)

    def cached(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array computed from all slices: taken from the cache, or computed and cached.

        Parameters
        ----------
        key : str
            Identifies the array; it becomes the name of a file.
        make : callable
            Computes the array.

        Returns
        -------
        ndarray
            Cached in RAM until another key is asked for, and on disk beside the slices if the store has ``memory``.
        """
        if self._cached is not None and self._cached[0] == key:
            return self._cached[1]
        path = None if self._folder is None else self._folder / f"{key}.npy"
        if path is not None and path.is_file() and not is_sealed(path):
            warnings.warn(f"the kept array {str(path)!r} is damaged; it is computed anew.", stacklevel=2)
            _remove(path)
        if path is not None and path.is_file():
            value = np.load(path)
        else:
            value = make()
            if path is not None:
                try:
                    with whole_file(path) as partial:
                        _write_array(partial, value)
                except OSError as error:  # a full or read-only disk
                    warnings.warn(f"{str(path)!r} is not kept: {error}.", stacklevel=2)
        self._cached = key, value
        return value

    def gather(self, indices: np.ndarray, device: "torch.device | str" = "cpu") -> "torch.Tensor":
        """Slices as floats in [0, 1].

        Parameters
        ----------
        indices : ndarray of shape (k,)
        device : torch.device or str, default="cpu"

        Returns
        -------
        Tensor of shape (k, 1, H, W), or (k, C, H, W), float32
        """
        import torch  # here, since reading scans must not wait for it

        run = len(indices) and indices[-1] - indices[0] == len(indices) - 1 and (np.diff(indices) == 1).all()
        slices = self.data[indices[0] : indices[-1] + 1].copy() if run else self.data[indices]
        image = torch.as_tensor(np.asarray(slices)).to(device, non_blocking=True)
        image = image[:, None] if image.ndim == 3 else image
        return image.float().div_(255) if image.dtype == torch.uint8 else image.float()


class _Stacks:
    """Stacks of slices in the order of the patients, each read once: in memory, or in a file of a folder.

    Parameters
    ----------
    place : Path or None
        The folder.

    Attributes
    ----------
    kinds : list of (shape, dtype) or None
        Of each patient, None where the image is missing.
    """

    def __init__(self, place: Path | None):
        self.kinds: list[tuple[tuple[int, ...], np.dtype] | None] = []
        self._held: list[np.ndarray] = []
        self._path = None if place is None else place / "stacks"
        self._file: BinaryIO | None = None if self._path is None else self._path.open("wb+")

    def __enter__(self) -> "_Stacks":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None and self._path is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def append(self, stack: np.ndarray | None) -> None:
        """Add the stack of the next patient."""
        self.kinds.append(None if stack is None else (stack.shape, stack.dtype))
        if stack is not None and self._file is not None:
            np.save(self._file, stack)
        elif stack is not None:
            self._held.append(stack)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Those that there are; what was read is freed."""
        if self._file is None:
            self._held.reverse()
            while self._held:
                yield self._held.pop()
            return
        self._file.seek(0)
        for each in self.kinds:
            if each is not None:
                yield np.load(self._file)


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A new folder beside one that is to be made, which is removed if it was not renamed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = new_folder(folder.parent)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{error.strerror}: slices cannot be kept here. Give memory= a folder that can be written, or None",
            str(folder.parent),
        ) from error
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
    seal(path)


def _remove(path: Path) -> None:
    """Move a damaged file or folder aside and delete it, so that no other process reads it meanwhile."""
    aside = new_folder(path.parent)
    try:
        os.replace(path, aside / path.name)
    except FileNotFoundError:
        pass  # another process has removed it
    except OSError as error:
        raise type(error)(
            error.errno, f"{error.strerror}: it is damaged, and must be deleted by hand", str(path)
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _warn_of_partial_masks(images: Sequence[Any], masks: Sequence[Any], patients: Sequence[Any]) -> None:
    """Warn if only some images have a mask, since cropped and whole images differ in kind."""
    has_mask = [not is_missing(mask) for image, mask in zip(images, masks, strict=True) if not is_missing(image)]
    if any(has_mask) and not all(has_mask):
        whole = [
            patient
            for image, mask, patient in zip(images, masks, patients, strict=True)
            if is_missing(mask) and not is_missing(image)
        ]
        warnings.warn(
            f"{len(whole)} of {len(has_mask)} patients with an image have no mask, such as {whole[:5]}: their images "
            "are taken whole, while the others are cut out. Add their masks, or leave the mask column out.",
            stacklevel=3,
        )


def _prepare(
    cell: Any,
    mask_cell: Any,
    patient: Any,
    read: Reader | None,
    image_size: tuple[int, int] | None,
    max_image_size: int | None,
    intensity_range: tuple[float, float] | None,
    max_slices: int | None,
    dtype: str,
    mask_label: Any,
    resample_mask: bool,
) -> np.ndarray | None:
    """One patient's stack, uint8 or float32 in [0, 1]; None if missing."""
    if is_missing(cell):
        return None
    found = None if read is None else read(cell, mask_cell, patient)
    if found is not None:
        image, mask, intensity_range = found
    else:
        image, mask = read_image(cell, patient), None
    if intensity_range is not None:
        check_units(image, intensity_range, patient)
    if found is None and not is_missing(mask_cell):
        label = None if isinstance(mask_label, str) else mask_label
        how: Any = {"label": label, "resample_mask": resample_mask, "arguments": MaskArguments("mask_label")}
        mask = read_structure(mask_cell, patient, image.shape, image=cell, **how)
    if mask is not None:
        image = cut_out(image, mask)
    if max_slices is not None and len(image) > max_slices:
        image = image[np.linspace(0, len(image) - 1, max_slices).round().astype(int)]
    image = _to_grey(image, intensity_range, patient)
    longest = max(image.shape[-2:])
    if image_size is None and max_image_size is not None and longest > max_image_size:
        height, width = (max(round(side * max_image_size / longest), 1) for side in image.shape[-2:])
        image_size = height, width
    if image_size is not None and image.shape[-2:] != image_size:
        import torch
        from torch.nn import functional

        channels = torch.as_tensor(image.astype(np.float32).reshape(len(image), -1, *image.shape[-2:]))
        resized = functional.interpolate(channels, image_size, mode="bilinear", antialias=True).numpy()
        resized = resized.reshape(*image.shape[:-2], *image_size)
        image = resized.round().clip(0, 255).astype(np.uint8) if image.dtype == np.uint8 else resized.clip(0, 1)
    return np.ascontiguousarray(image)


def _to_grey(image: np.ndarray, intensity_range: tuple[float, float] | None, patient: Any) -> np.ndarray:
    if intensity_range is not None:
        low, high = intensity_range
        return ((image.astype(np.float32) - low) / (high - low)).clip(0, 1)
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        return image.astype(np.float32)
    raise ValueError(
        f"the image of patient {patient!r} holds {image.dtype} from {image.min():g} to {image.max():g}; without "
        "intensity_range only 8-bit greys and floats in [0, 1] are understood. Pass intensity_range=(low, high), for "
        "example (-1350, 150) for lung CT in HU. Vectors of another model are no image: they are read from a column "
        "'<name>_vectors', or by the encoder 'vectors'."
    )


def _key(images: Sequence[Any], masks: Sequence[Any], patients: list, settings: tuple, read: Reader | None) -> str:
    reader = () if read is None else (joblib.hash(read),)
    digest = hashlib.blake2b(repr((_FORMAT, settings, len(images), *reader)).encode(), digest_size=16)
    for cell, mask, patient in zip(images, masks, patients, strict=True):
        for part in (cell, mask):
            digest.update(fingerprint(part, patient).encode())
    return digest.hexdigest()
