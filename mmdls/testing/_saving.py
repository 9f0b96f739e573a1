"""Whether a fitted model survives being saved."""

from tempfile import TemporaryDirectory
from typing import Any

from mmdls.persistence import load, save
from mmdls.persistence._types import UnregisteredError

__all__ = ["reloaded"]


def reloaded(model: Any, name: str = "model") -> Any:
    """A fitted model from the files that it is saved to; None for one with parts that are not registered yet."""
    with TemporaryDirectory() as folder:
        try:
            save(model, f"{folder}/{name}")
        except UnregisteredError:
            return None
        return load(f"{folder}/{name}")
