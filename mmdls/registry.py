"""Named parts: every backbone, pooling, fusion, head, segmentation network, estimator and model is an entry here."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial, wraps
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from operator import attrgetter
from typing import Any

import pandas as pd

from mmdls._hints import did_you_mean

__all__ = [
    "CarriesParts",
    "Registry",
    "augmentations",
    "backbones",
    "competing_risks_heads",
    "encoders",
    "estimators",
    "fusions",
    "models",
    "nominal_heads",
    "ordinal_heads",
    "poolings",
    "regression_heads",
    "segmentation_nets",
    "survival_heads",
    "task_weights",
    "tasks",
    "volume_backbones",
]


class Registry(Mapping):
    """The parts of one kind, by name.

    Parts of this library register themselves with the decorator :meth:`register`; other packages offer theirs
    through the entry-point group ``mmdls.<kind>``, whose entry name is the key. Listing names imports no plug-in:
    a plug-in is imported when it is asked for, and only then can it fail or turn out to claim another's name.

    Parameters
    ----------
    kind : str
        What is kept here, in the plural, for example ``"backbones"``.
    home : str
        The module of this library whose import registers the built-in parts.
    needs : sequence of str, default=()
        Methods without which a class is not a part of this kind.
    holds : sequence of str, default=()
        Attributes without which an object of such a class is none.

    Examples
    --------
    >>> from mmdls.registry import poolings
    >>> "mean" in poolings
    True
    >>> poolings["mean"].__name__
    'MeanPooling'
    """

    def __init__(self, kind: str, home: str, needs: Sequence[str] = (), holds: Sequence[str] = ()) -> None:
        self.kind = kind
        self.home = home
        self.needs = tuple(needs)
        self.holds = tuple(holds)
        self._parts: dict[str, type] = {}
        self._families: dict[str, type] = {}
        self._received: set[str] = set()

    def register(self, name: str) -> Callable[[type], type]:
        """Decorate a class to make it available under ``name``.

        Parameters
        ----------
        name : str
            The key; a class defined once more, as in a notebook, takes the place of its former self.

        Notes
        -----
        A class may say what its parameters may be, in the attribute ``_parameter_constraints``, as estimators of
        scikit-learn do: they are then checked whenever it is called, before anything is made.

        Raises
        ------
        TypeError
            If it is not a class, or lacks a method that this kind of part needs.
        ValueError
            If the name belongs to another class already; the message names both.
        """

        def decorate(part: type) -> type:
            if not isinstance(part, type):
                raise TypeError(f"{self.kind}[{name!r}] must be a class; got {part!r}.")
            missing = [method for method in self.needs if not callable(getattr(part, method, None))]
            if missing:
                raise TypeError(
                    f"{self.kind}[{name!r}] needs the methods {', '.join(self.needs)}; "
                    f"{_owner(part)!r} lacks {', '.join(missing)}."
                )
            taken = self._parts.get(name, part)
            if _owner(taken) != _owner(part):
                raise ValueError(
                    f"{self.kind}[{name!r}] is taken by {_owner(taken)!r}; {_owner(part)!r} cannot have the same name. "
                    "Choose another name, or uninstall one of the two packages."
                )
            self._parts[name] = _checked(part)
            self._received.discard(name)
            if _is_foreign(part):
                _teach_cloudpickle()
            return part

        return decorate

    def _receive(self, name: str, part: type) -> None:
        """Take a part of the process that sent work here; what this process registered itself stays."""
        if name not in self._parts or name in self._received:
            self._parts[name] = part
            self._received.add(name)

    def family(self, prefix: str) -> Callable[[type], type]:
        """Decorate a class to make it available under all names ``"<prefix>:<name>"``, which are not listed.

        Parameters
        ----------
        prefix : str
            The class takes what follows the colon as its first argument.
        """

        def decorate(part: type) -> type:
            self._families[prefix] = _checked(part)
            return part

        return decorate

    def _of_family(self, name: object) -> Any:
        """What a name with a colon stands for; None for any other."""
        prefix, colon, rest = str(name).partition(":")
        return partial(self._families[prefix], rest) if colon and rest and prefix in self._families else None

    @cached_property
    def _offered(self) -> dict[str, list[EntryPoint]]:
        """What other packages offer, by name."""
        offered: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=f"mmdls.{self.kind}"):
            offered.setdefault(entry.name, []).append(entry)
        return offered

    @cached_property
    def _plugins(self) -> dict[str, list[EntryPoint]]:
        import_module(self.home)
        return self._offered

    def known(self) -> list[str]:
        """Names that are known before the parts of this library are imported: of plug-ins, and of parts in use."""
        return sorted({*self._offered, *self._parts})

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            hint = did_you_mean(name, self, n=3, cutoff=0.5)
            raise KeyError(f"{self.kind} has no {name!r}.{hint} Known: {', '.join(self)}.")
        for entry in self._plugins.get(name, ()):
            self.register(name)(self._load(entry))
        return self._parts[name] if name in self._parts else self._of_family(name)

    def _load(self, entry: EntryPoint) -> Any:
        try:
            return entry.load()
        except Exception as error:  # whatever a stranger's package raises, the user must learn whose it is
            raise ImportError(
                f"{self.kind}[{entry.name!r}] is offered by {entry.value!r} "
                f"(package {entry.dist.name if entry.dist else 'unknown'}), which cannot be imported: {error!r}. "
                "Repair or uninstall that package."
            ) from error

    def available(self) -> dict[str, Any]:
        """Every part that can be imported, by name, for those who ask all of them.

        Warns
        -----
        UserWarning
            Of a plug-in that cannot be imported or has the name of another part; it is left out.
        """
        parts = {}
        for name in self:
            try:
                parts[name] = self[name]
            except (ImportError, TypeError, ValueError) as error:
                warnings.warn(f"{error} It is left out.", stacklevel=3)
                if name in self._parts:
                    parts[name] = self._parts[name]
        return parts

    def __contains__(self, name: object) -> bool:
        return name in self._plugins or name in self._parts or self._of_family(name) is not None

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
            offered = {entry.value for entry in self._plugins.get(name, ())}
            source = " and ".join(sorted(offered if part is None else offered | {_owner(part)}))
            about = (part.__doc__ or "").strip().partition("\n")[0] if part is not None else "(plug-in, not loaded)"
            rows.append((name, source, about))
        return pd.DataFrame(rows, columns=["name", "source", "about"]).set_index("name")


class CarriesParts:
    """An estimator that brings the parts registered here along to the workers of joblib.

    A part that a notebook, a script or a module without entry points registers is known to that process alone. Workers
    get work by cloudpickle, and with it these parts: classes of a notebook with their code, others by their module. In
    pickles of any other kind, and in saved models, there are none.

    Examples
    --------
    >>> from mmdls import MMDLS
    >>> issubclass(MMDLS, CarriesParts)
    True
    """

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, "_carried": _CARRIED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({name: value for name, value in state.items() if name != "_carried"})  # type: ignore[misc]


class _Carried:
    """Stands for the parts registered here; hashes and pickles of the estimator do not depend on them."""

    def __deepcopy__(self, memo: Any) -> "_Carried":
        return self

    def __reduce__(self) -> tuple:
        return tuple, ()


_CARRIED = _Carried()


def _pack(carried: _Carried) -> tuple:
    """What cloudpickle writes of the parts registered here that another process would not find by itself."""
    parts = [
        (kind, name, *((part.__module__, part.__qualname__) if _is_importable(part) else (None, part)))
        for kind, registry in _registries().items()
        for name, part in registry._parts.items()
        if _is_foreign(part) and name not in registry._offered
    ]
    return _unpack, (parts,)


def _unpack(parts: Sequence[tuple[str, str, str | None, Any]]) -> None:
    for kind, name, module, part in parts:
        # The work may need none of them, so one that cannot be imported here is not missed before it is asked for.
        with suppress(ImportError, AttributeError):
            found = part if module is None else attrgetter(part)(import_module(module))
            _registries()[kind]._receive(name, found)


def _teach_cloudpickle() -> None:
    """joblib has cloudpickle as a package of its own or, in older versions, within itself."""
    for name in ("cloudpickle", "joblib.externals.cloudpickle"):
        with suppress(ImportError):
            import_module(name).CloudPickler.dispatch_table[_Carried] = _pack


def _checked(part: Any) -> type:
    """A class whose ``__init__`` first checks its parameters, where ``_parameter_constraints`` say what they may be.

    Estimators are left as they are: theirs are checked by ``fit``, as in scikit-learn.
    """
    constraints, make = getattr(part, "_parameter_constraints", None), part.__init__
    if constraints is None or hasattr(part, "get_params") or getattr(make, "checks", None) is part:
        return part
    from sklearn.utils._param_validation import validate_parameter_constraints  # here: a registry of names is fast

    names = list(signature(part).parameters)

    @wraps(make)
    def check_and_make(self: Any, *args: Any, **params: Any) -> None:
        validate_parameter_constraints(constraints, {**dict(zip(names, args, strict=False)), **params}, part.__name__)
        make(self, *args, **params)

    check_and_make.checks = part  # type: ignore[attr-defined]
    part.__init__ = check_and_make
    return part


def _registries() -> dict[str, Registry]:
    return {value.kind: value for value in globals().values() if isinstance(value, Registry)}


def _is_foreign(part: type) -> bool:
    return part.__module__.partition(".")[0] != "mmdls"


def _is_importable(part: type) -> bool:
    """Whether another process finds a class by its name."""
    if part.__module__ == "__main__":
        return False
    with suppress(KeyError, AttributeError):
        return attrgetter(part.__qualname__)(sys.modules[part.__module__]) is part
    return False


def _owner(part: type) -> str:
    return f"{part.__module__}:{part.__qualname__}"


augmentations = Registry("augmentations", "mmdls.modules", ["forward"], ["slice_dropout"])
backbones = Registry("backbones", "mmdls.modules", ["forward"])
volume_backbones = Registry("volume_backbones", "mmdls.modules", ["forward"])
poolings = Registry("poolings", "mmdls.modules", ["forward"])
fusions = Registry("fusions", "mmdls.modules", ["forward"], ["out_features"])
survival_heads = Registry(
    "survival_heads",
    "mmdls.modules",
    ["forward", "prepare", "loss", "risk", "fit_baseline", "survival_function"],
)
nominal_heads = Registry("nominal_heads", "mmdls.modules", ["forward", "prepare", "loss", "probabilities"])
ordinal_heads = Registry("ordinal_heads", "mmdls.modules", ["forward", "prepare", "loss", "probabilities"])
competing_risks_heads = Registry(
    "competing_risks_heads",
    "mmdls.modules",
    ["forward", "prepare", "loss", "risk", "fit_baseline", "survival_function", "cumulative_incidence"],
)
regression_heads = Registry("regression_heads", "mmdls.modules", ["forward", "prepare", "loss", "value"])
task_weights = Registry("task_weights", "mmdls.modules", ["forward"], ["learning_rate"])
segmentation_nets = Registry("segmentation_nets", "mmdls.modules", ["forward"])
encoders = Registry(
    "encoders", "mmdls.estimators._all", ["get_params", "set_params", "fit_preprocessing", "prepare", "build"]
)
estimators = Registry("estimators", "mmdls.estimators._all", ["fit", "get_params", "set_params"])
tasks = Registry("tasks", "mmdls.tasks", ["find", "outcome", "predictions", "statistics"])
models = Registry("models", "mmdls.zoo", ["build"])
