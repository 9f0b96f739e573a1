"""Parts of a network by name."""

from torch import nn

__all__ = ["NamedModules"]


class NamedModules(nn.ModuleDict):
    """Modules whose names users choose: columns, blocks and tasks.

    PyTorch's own refuses names with a point, such as ``"T.stage"``, and those of its methods, such as ``"type"``.

    Examples
    --------
    >>> list(NamedModules({"type": nn.Identity(), "T.stage": nn.Identity()}))
    ['type', 'T.stage']
    """

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Keep a module under any name."""
        self._modules[name] = module
