"""Networks of MONAI by the names they have there; it is imported when one is asked for."""

from typing import Any

__all__ = ["monai_class"]


def monai_class(name: str) -> Any:
    """A class of ``monai.networks.nets``.

    Raises
    ------
    ImportError
        If MONAI is not installed.
    KeyError
        If it has no such network.
    """
    try:
        from monai.networks import nets
    except ImportError as error:
        raise ImportError(
            f'the network "monai:{name}" comes from MONAI; install it with: pip install "mmdls[monai]"'
        ) from error
    if not hasattr(nets, name):
        raise KeyError(f"monai.networks.nets has no {name!r}; names are written as there, for example 'UNet'.")
    return getattr(nets, name)
