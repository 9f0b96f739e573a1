"""Parts of a network by name."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

from torch import nn

__all__ = ["NamedModules", "state_key"]


class NamedModules(nn.Module):
    """Modules whose names users choose: columns, blocks and tasks. Any text is a name.

    PyTorch joins the names of modules with points to the keys of a state dict, and keeps modules beside its own
    attributes. A name with a point, such as ``"T.stage"``, could not be loaded again, and one such as ``"training"``
    not be set. A module is therefore kept under :func:`state_key` of its name.

    Parameters
    ----------
    modules : mapping of str to nn.Module, default=None

    Examples
    --------
    >>> parts = NamedModules({"os": nn.Linear(1, 1, bias=False), "T.stage": nn.Linear(1, 1, bias=False)})
    >>> list(parts), list(parts.state_dict())
    (['os', 'T.stage'], ['os.weight', 'T%2Estage.weight'])
    """

    def __init__(self, modules: Mapping[str, nn.Module] | None = None):
        super().__init__()
        for name, module in (modules or {}).items():
            self[name] = module

    # What the modules can do is a contract between whoever keeps them here and whoever calls them.
    def __getitem__(self, name: str) -> Any:
        return self._modules[state_key(name)]

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self._modules[state_key(name)] = module

    def __iter__(self) -> Iterator[str]:
        return map(_name_of, self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and state_key(name) in self._modules

    def keys(self) -> KeysView[str]:
        """Names, in order."""
        return dict(self.items()).keys()

    def values(self) -> ValuesView[Any]:
        """Modules, in order."""
        return self._modules.values()

    def items(self) -> ItemsView[str, Any]:
        """Names and modules, in order."""
        return dict(zip(self, self._modules.values(), strict=True)).items()


@cache
def state_key(name: str) -> str:
    """The key of a name inside the keys of a state dict: another one for every name.

    Letters of ASCII, digits, ``_``, ``-`` and ``~`` stay; everything else is written as in an address
    (percent-encoding), and so is the first letter of a name that PyTorch uses for an attribute.

    Examples
    --------
    >>> [state_key(name) for name in ("clinical", "a.b", "a/b", "training", "")]
    ['clinical', 'a%2Eb', 'a%2Fb', '%74raining', '%']
    """
    key = quote(name, safe="", errors="surrogatepass").replace(".", "%2E")
    if hasattr(_PLAIN, key):
        return f"%{ord(key[0]):02X}{key[1:]}"
    return key or "%"


_PLAIN = nn.Module()


@cache
def _name_of(key: str) -> str:
    return "" if key == "%" else unquote(key, errors="surrogatepass")
