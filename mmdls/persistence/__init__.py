"""Fitted models in files that are safe to load, and networks for serving."""

from mmdls.persistence._convert import convert
from mmdls.persistence._export import export, network_inputs
from mmdls.persistence._manifest import InconsistentVersionWarning
from mmdls.persistence._save import load, save

__all__ = ["InconsistentVersionWarning", "convert", "export", "load", "network_inputs", "save"]
