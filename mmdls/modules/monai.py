"""Networks of MONAI by the names they have there; it is imported when one is asked for."""

from typing import Any

from mmdls._hints import did_you_mean

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
    if not isinstance(getattr(nets, name, None), type):
        hint = did_you_mean(name, [one for one, value in vars(nets).items() if isinstance(value, type)])
        raise KeyError(f"monai.networks.nets has no {name!r}; names are written as there, for example 'UNet'.{hint}")
    return getattr(nets, name)
