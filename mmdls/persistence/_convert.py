"""The checkpoint of the published code as a saved model."""

from os import PathLike
from typing import Any

from mmdls.estimators import MMDLS
from mmdls.persistence._save import save

__all__ = ["convert"]


def convert(checkpoint: str | PathLike, out: str | PathLike, **about: Any) -> MMDLS:
    """Save the published ``best_model.pt`` as a model that :func:`load` reads; nothing in the file is executed.

    Parameters
    ----------
    checkpoint : str or Path
        See :meth:`mmdls.MMDLS.published`.
    out : str or Path
        As in :func:`save`: a folder, or one file that ends in ``.mmdls``.
    **about
        ``metrics`` and ``intended_use``, as in :func:`save`.

    Returns
    -------
    MMDLS
        The model: it predicts labels and risks; :meth:`~mmdls.MMDLS.fit_baselines` estimates baseline hazards.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If it is another model's.

    Examples
    --------
    >>> import mmdls
    >>> model = convert("best_model.pt", "published.mmdls", intended_use="Research.")  # doctest: +SKIP
    >>> list(mmdls.load("published.mmdls").tasks_)  # doctest: +SKIP
    ['subtype', 'stage', 'dfs', 'os']
    """
    model = MMDLS.published(checkpoint)
    save(model, out, **about)
    return model
