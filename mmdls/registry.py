"""Named parts: every backbone, pooling, fusion, head, segmentation network and estimator is an entry here."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pandas as pd

__all__ = [
    "Registry",
    "backbones",
    "estimators",
    "fusions",
    "poolings",
    "segmentation_nets",
    "survival_heads",
]


class Registry(Mapping):
    """The parts of one kind, by name.

    Parts of this library register themselves with the decorator :meth:`register`; other packages offer theirs
    through the entry-point group ``mmdls.<kind>``, whose entry name is the key. Listing names imports no plug-in:
    a plug-in is imported when it is asked for.

    Parameters
    ----------
    kind : str
        What is kept here, in the plural, for example ``"backbones"``.
    home : str
        The module of this library whose import registers the built-in parts.

    Examples
    --------
    >>> from mmdls.registry import poolings
    >>> "mean" in poolings
    True
    >>> poolings["mean"].__name__
    'MeanPooling'
    """

    def __init__(self, kind: str, home: str) -> None:
        self.kind = kind
        self.home = home
        self._parts: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorate a class to make it available under ``name``.

        Raises
        ------
        ValueError
            If the name belongs to another class already; the message names both.
        """

        def decorate(part: Any) -> Any:
            taken = self._parts.setdefault(name, part)
            if taken is not part:
                raise self._taken(name, _owner(taken), _owner(part))
            return part

        return decorate

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        import_module(self.home)
        plugins: dict[str, EntryPoint] = {}
        for entry in entry_points(group=f"mmdls.{self.kind}"):
            owner = plugins.setdefault(entry.name, entry)
            if owner.value != entry.value:
                raise self._taken(entry.name, owner.value, entry.value)
            built_in = self._parts.get(entry.name)
            if built_in is not None and _owner(built_in) != entry.value:
                raise self._taken(entry.name, _owner(built_in), entry.value)
        return plugins

    def __getitem__(self, name: str) -> Any:
        plugins = self._plugins
        if name in self._parts:
            return self._parts[name]
        if name not in plugins:
            close = get_close_matches(str(name), list(self), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "known names"
            raise KeyError(f"{self.kind} has no {name!r}; {hint} (all: {', '.join(self)})")
        entry = plugins[name]
        try:
            part = entry.load()
        except Exception as error:  # whatever a stranger's package raises, the user must learn whose it is
            raise ImportError(
                f"{self.kind}[{name!r}] is offered by {entry.value!r} "
                f"(package {entry.dist.name if entry.dist else 'unknown'}), which cannot be imported: {error!r}. "
                "Repair or uninstall that package."
            ) from error
        return self.register(name)(part)

    def __contains__(self, name: object) -> bool:
        return name in self._plugins or name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._plugins, *self._parts}))

    def __len__(self) -> int:
        return len({*self._plugins, *self._parts})

    def __repr__(self) -> str:
        return f"<Registry {self.kind}: {', '.join(self)}>"

    def table(self) -> pd.DataFrame:
        """List the parts as a table: name, where it comes from, first line of its docstring (if it is loaded)."""
        rows = []
        for name in self:
            part = self._parts.get(name)
            source = _owner(part) if part is not None else self._plugins[name].value
            about = (part.__doc__ or "").strip().partition("\n")[0] if part is not None else "(plug-in, not loaded)"
            rows.append((name, source, about))
        return pd.DataFrame(rows, columns=["name", "source", "about"]).set_index("name")

    def _taken(self, name: str, owner: str, other: str) -> ValueError:
        return ValueError(
            f"{self.kind}[{name!r}] is taken by {owner!r}; {other!r} cannot have the same name. "
            "Choose another name, or uninstall one of the two packages."
        )


def _owner(part: Any) -> str:
    return f"{part.__module__}:{part.__qualname__}"


backbones = Registry("backbones", "mmdls.modules")
poolings = Registry("poolings", "mmdls.modules")
fusions = Registry("fusions", "mmdls.modules")
survival_heads = Registry("survival_heads", "mmdls.modules")
segmentation_nets = Registry("segmentation_nets", "mmdls.modules")
estimators = Registry("estimators", "mmdls.estimators")
