"""Versions of the software."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_versions", "versions"]

_PACKAGES = ("mmdls", "numpy", "scipy", "pandas", "scikit-learn", "scikit-survival", "torch", "skorch", "matplotlib")


def versions() -> list[tuple[str, str]]:
    """Names and versions of Python, the system and the packages on which results depend."""
    return [
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        *installed_versions(_PACKAGES).items(),
    ]


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of some packages that are installed.

    Parameters
    ----------
    packages : iterable of str

    Returns
    -------
    dict of str to str
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
