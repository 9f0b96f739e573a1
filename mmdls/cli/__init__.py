"""The command line: ``mmdls COMMAND``, or ``python -m mmdls COMMAND``."""

from mmdls.cli._main import main

__all__ = ["main"]
