"""Fitted models in files that are safe to load, and networks for serving."""

from mmdls.persistence._manifest import InconsistentVersionWarning
from mmdls.persistence._save import load, save

__all__ = ["InconsistentVersionWarning", "load", "save"]
