"""From a table of patients with scans to the folder of a cohort, which :func:`mmdls.datasets.load_cohort` reads.

It loads on first use: processes that work on patients need less, and begin sooner.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdls.preparation._prepare import prepare_cohort as prepare_cohort

__all__ = ["prepare_cohort"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    from mmdls.preparation._prepare import prepare_cohort

    return prepare_cohort


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
