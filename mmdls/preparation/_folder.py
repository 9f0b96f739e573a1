"""The folder of a prepared cohort: where its files lie, what was finished, and whether it may be continued."""

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from mmdls._files import whole_file
from mmdls._secrets import without_formulas
from mmdls._versions import installed_versions
from mmdls.images._files import SLICE_FOLDERS

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

__all__ = ["FORMAT", "PART_FILES", "Folder", "versions"]

PART_FILES = {column: part for part, column in SLICE_FOLDERS.items()}
FORMAT = "mmdls cohort, prepared from scans"
_PACKAGES = ("mmdls", "numpy", "scipy", "pydicom", "SimpleITK", "nibabel", "pillow")
_ENGINES = {"fastrad": ("fastrad", "torch"), "pyradiomics": ("pyradiomics",)}


class Folder:
    """The folder of a cohort.

    Parameters
    ----------
    root : Path
    """

    def __init__(self, root: Path):
        self.root = root
        # By which processes know that the folder is still that of their run.
        self.run = ""

    def images(self, name: str) -> Path:
        """The folder of a patient's slices and masks."""
        return self.root / "images" / name

    def sheet(self, name: str) -> Path:
        """A patient's picture."""
        return self.root / "sheets" / f"{name}.png"

    def record(self, name: str) -> Path:
        """What was done for a patient; there only when all was."""
        return self.root / "records" / f"{name}.json"

    @property
    def manifest(self) -> Path:
        """Settings, versions, and the hashes of all inputs."""
        return self.root / "manifest.json"

    def open(self, settings: Mapping[str, Any], names: Sequence[str], replace: bool) -> None:
        """Make the folder, or go on with one that was begun with the same settings.

        Parameters
        ----------
        settings : mapping
        names : sequence of str
            Of the patients' files.
        replace : bool
            Start anew in a folder that was prepared before.

        Raises
        ------
        FileExistsError
            If there is anything else in it.
        ValueError
            If it was begun with other settings, or holds patients that the table lacks.
        """
        if self.root.exists() and not self.root.is_dir():
            raise FileExistsError(f"{str(self.root)!r} is a file; give a folder.")
        if self.root.is_dir() and any(self.root.iterdir()):
            begun = self._begun()
            plain = json.loads(_as_json(settings))
            changed = sorted(key for key in {*begun, *plain} if begun.get(key) != plain.get(key))
            if changed and not replace:
                named = "; ".join(f"{key} was {begun.get(key)!r} and is {plain.get(key)!r}" for key in changed)
                raise ValueError(
                    f"{str(self.root)!r} was prepared with other settings: {named}. Patients prepared in several ways "
                    "cannot be compared: choose a new folder, the same settings, or existing='replace' to prepare all "
                    "again."
                )
            strangers = sorted(self.records().keys() - set(names))
            if strangers and not replace:
                raise ValueError(
                    f"{str(self.root)!r} holds {len(strangers)} patients that the table lacks, such as "
                    f"{strangers[:3]}: choose a new folder, add them to the table, or existing='replace' to prepare "
                    "all again."
                )
        self.run = uuid4().hex
        with self._locked("records", shared=False):
            for unfinished in self.root.rglob(".unfinished-*"):
                unfinished.unlink()
            if replace:
                for part in ("images", "sheets", "records"):
                    shutil.rmtree(self.root / part, ignore_errors=True)
            for part in ("images", "sheets", "records"):
                (self.root / part).mkdir(parents=True, exist_ok=True)
            # Without its table the folder is not loaded while patients change.
            (self.root / "clinical.csv").unlink(missing_ok=True)
            self.write_json(self.manifest, {"format": FORMAT, "settings": settings, "run": self.run})

    @contextmanager
    def at_work(self) -> Iterator[bool]:
        """Work on a patient, in whatever process; gives whether the run goes on.

        Processes of a run that was killed may live on for a patient. A new run waits for the one that they are at,
        after which they find the folder taken.
        """
        with self._locked("records", shared=True):
            try:
                begun = json.loads(self.manifest.read_text(encoding="utf-8")).get("run")
            except FileNotFoundError:
                begun = None
            yield begun == self.run

    @contextmanager
    def _locked(self, part: str, shared: bool) -> Iterator[None]:
        """Wait until nobody else holds a part of the folder; what is not there nobody holds."""
        if fcntl is None or not (self.root / part).is_dir():
            yield
            return
        place = os.open(self.root / part, os.O_RDONLY)
        try:
            fcntl.flock(place, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder, until this one has ended in whatever way. Windows has no such lock.

        Raises
        ------
        FileExistsError
            If another run is at work in it.
        """
        if fcntl is None or (self.root.exists() and not self.root.is_dir()):
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        place = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileExistsError(
                    f"another run is preparing {str(self.root)!r}; wait until it has ended, or choose another folder."
                ) from None
            yield
        finally:
            os.close(place)

    def _begun(self) -> dict[str, Any]:
        """The settings that a folder was begun with."""
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
            if manifest["format"] == FORMAT:
                return dict(manifest["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise FileExistsError(
            f"{str(self.root)!r} is not empty, and holds no cohort that was prepared here; choose a new folder, "
            "nothing is overwritten."
        )

    def forget(self, name: str) -> None:
        """Remove what there is of a patient, the record first."""
        self.record(name).unlink(missing_ok=True)
        self.sheet(name).unlink(missing_ok=True)
        shutil.rmtree(self.images(name), ignore_errors=True)

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all patients, by the names of their files."""
        found = {}
        for path in sorted((self.root / "records").glob("*.json")):
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write that a patient is finished."""
        self.write_json(self.record(record["name"]), record)

    def write_json(self, path: Path, content: Any) -> None:
        """Write a file of JSON whole."""
        with whole_file(path) as partial:
            partial.write_text(_as_json(content), encoding="utf-8")

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        """Write a table with a row a patient whole."""
        with whole_file(self.root / f"{name}.csv") as partial:
            without_formulas(table).to_csv(partial, index_label="patient_id", encoding="utf-8", lineterminator="\n")

    def remove_table(self, name: str) -> None:
        """Remove a table that an earlier run has written."""
        (self.root / f"{name}.csv").unlink(missing_ok=True)


def versions(settings: Mapping[str, Any]) -> dict[str, str]:
    """Versions of Python and of the packages on which the results depend.

    Parameters
    ----------
    settings : mapping
        Of :func:`prepare_cohort`.

    Returns
    -------
    dict of str to str
    """
    radiomics = settings["radiomics"]
    engine = () if radiomics is None else _ENGINES[radiomics.get("engine", "fastrad")]
    # An extra that is not installed takes no part.
    return {"python": platform.python_version()} | installed_versions([*_PACKAGES, *engine])


def _as_json(content: Any) -> str:
    return json.dumps(_plain(content), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(content: Any) -> Any:
    """Types of JSON, with null for what is not a number."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not np.isfinite(content) else content
