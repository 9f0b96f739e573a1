"""A registered part with parameters of its own, and estimators that are made of such parts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from inspect import Parameter, signature
from typing import Any

from sklearn.base import BaseEstimator, clone

from mmdls.registry import CarriesParts, Registry

__all__ = ["Composed", "Part", "Slot", "build", "name_of"]


class Part(BaseEstimator):
    """A part of a network by name, with the parameters in which it differs from its defaults.

    Wherever a name such as ``"gated"`` may stand, a ``Part`` may stand too; the name alone means ``Part(name)``.

    Parameters
    ----------
    name : str or class
        A name in the registry of the place where it stands, or a class that keeps the same contract.
    **params
        Parameters of the part.

    Examples
    --------
    >>> part = Part("gated", dropout=0.3)
    >>> part
    Part('gated', dropout=0.3)
    >>> part == Part("gated").set_params(dropout=0.3)
    True
    """

    def __init__(self, name: Any, **params: Any):
        self.name = name
        self.params = params

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The name, and the parameters that were given."""
        return {"name": self.name, **self.params}

    def set_params(self, **params: Any) -> "Part":
        """Set the name or parameters; whether the part has them is checked by the estimator it belongs to."""
        self.name = params.pop("name", self.name)
        self.params = self.params | params
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.get_params() == other.get_params()

    __hash__ = None  # type: ignore[assignment]  # parts can be changed

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        name = getattr(self.name, "__name__", None) or repr(self.name)
        return f"Part({', '.join([name, *(f'{key}={value!r}' for key, value in self.params.items())])})"


def name_of(value: Any) -> str:
    """The name of what may stand in a slot.

    Parameters
    ----------
    value : str, class, Part or estimator

    Returns
    -------
    str
        A name as it is, that of a Part, or that of the class.

    Examples
    --------
    >>> name_of("gated"), name_of(Part("gated", dropout=0.3)), name_of(Part)
    ('gated', 'gated', 'Part')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Part):
        return name_of(value.name)
    return value.__name__ if isinstance(value, type) else type(value).__name__


def build(registry: Mapping[str, Any], choice: Any, *args: Any, **given: Any) -> Any:
    """Build a part.

    Parameters
    ----------
    registry : mapping of str to class
    choice : str, class or Part
    *args, **given
        What its owner knows, such as widths.

    Returns
    -------
    object

    Raises
    ------
    KeyError
        If the registry has no such name.
    TypeError
        If the choice is an object instead of its class, if the class does not take what its owner knows, or if what it
        makes lacks what its owner reads.
    ValueError
        If the part does not take a parameter.

    Examples
    --------
    >>> from mmdls.registry import poolings
    >>> build(poolings, Part("gated_attention", hidden_features=8), 32).score
    Linear(in_features=8, out_features=1, bias=True)
    """
    part = choice if isinstance(choice, Part) else Part(choice)
    cls = _class_of(registry, part)
    if not isinstance(cls, type) and (needs := getattr(registry, "needs", ())) and all(hasattr(cls, n) for n in needs):
        made = type(cls).__name__
        raise TypeError(
            f"expected a name in {registry!r}, a class or a Part, of which every fit makes a new object; got an object "
            f"of class {made}. Give the class {made}, or Part({made}, ...) with the parameters it shall have."
        )
    known = signature(cls).parameters
    if not _takes_anything(known):
        if lacking := [name for name in given if name not in known]:
            raise TypeError(f"{name_of(cls)} must take {', '.join(lacking)}; it takes {', '.join(known) or 'nothing'}.")
        _refuse_unknown(part.params, [n for n in _defaults(known) if n not in given], repr(choice))
    made = cls(*args, **{**given, **part.params})
    if isinstance(registry, Registry):
        require(made, f"{name_of(cls)!r}, one of the {registry.kind},", (*registry.needs, *registry.holds))
    return made


def require(part: Any, what: str, names: Iterable[str]) -> None:
    """Refuse a part that lacks attributes or methods which its owner reads.

    Parameters
    ----------
    part : object
    what : str
        For the message.
    names : iterable of str

    Raises
    ------
    TypeError
    """
    if lacking := [name for name in names if not hasattr(part, name)]:
        raise TypeError(
            f"{what} lacks {', '.join(lacking)}, which its model reads; define what is lacking, as the parts of this "
            "library do. mmdls.testing.check_part says all that a part must have."
        )


@dataclass(frozen=True)
class Slot:
    """A parameter of an estimator in which a part, or another estimator, stands.

    Parameters
    ----------
    registry : mapping of str to class
        What names mean.
    owned : tuple of str, default=()
        Parameters of parts that the estimator decides.
    default : callable, default=None
        Makes what None means.
    used : bool, default=True
        Whether the estimator reads it as it is set; a search leaves others out.

    Examples
    --------
    >>> from mmdls.registry import poolings
    >>> slot = Slot(poolings)
    >>> slot.parameters("gated_attention")
    {'hidden_features': 64}
    >>> slot.changed("gated_attention", {"hidden_features": 8}, "pooling")
    Part('gated_attention', hidden_features=8)
    """

    registry: Mapping[str, Any]
    owned: tuple[str, ...] = ()
    default: Callable[[], Any] | None = None
    used: bool = True

    def resolve(self, value: Any) -> Any:
        """The Part or estimator that a value means."""
        if value is None and self.default is not None:
            return self.default()
        cls = value
        if isinstance(value, str):
            cls = self.registry[value]
        if isinstance(cls, type) and issubclass(cls, BaseEstimator):
            return cls()
        return Part(value) if isinstance(value, str) or callable(value) else value

    def parameters(self, value: Any) -> dict[str, Any]:
        """Parameters of what stands here, those that were not given with their defaults; empty for what is unknown."""
        if isinstance(value, str) and value not in self.registry:
            return {}
        part = self.resolve(value)
        if isinstance(part, Part):
            if isinstance(part.name, str) and part.name not in self.registry:
                return dict(part.params)
            known = _defaults(signature(_class_of(self.registry, part)).parameters)
            return {n: default for n, default in known.items() if n not in self.owned} | part.params
        return part.get_params(deep=True) if hasattr(part, "get_params") else {}

    def choices(self, value: Any, every: bool = False) -> list[Any]:
        """What a search tries here: what stands here, and the registered parts that may take its place.

        A class with an attribute ``searched = False`` is tried only where it stands already, or if ``every`` part is
        asked for. Encoders take the place of those that read the same, by their attribute ``reads``.
        """
        part = self.resolve(value)
        cls = _class_of(self.registry, part) if isinstance(part, Part) else type(part)
        available = self.registry.available() if isinstance(self.registry, Registry) else self.registry
        offered = {
            name: other
            for name, other in available.items()
            if (every or getattr(other, "searched", True))
            and getattr(other, "reads", None) == getattr(cls, "reads", None)
        }
        if isinstance(value, str):
            return sorted({value, *offered})
        return [value, *(name for name, other in offered.items() if other is not cls)]

    def changed(self, value: Any, params: Mapping[str, Any], name: str) -> Any:
        """What stands here once parameters are set; a name becomes the part itself.

        Raises
        ------
        ValueError
            If it has no such parameter.
        """
        part = self.resolve(value)
        owner = f"{name}={value!r}" if isinstance(part, Part) else f"{name} ({type(part).__name__})"
        if not hasattr(part, "set_params"):
            raise ValueError(f"{owner} has no parameters; {sorted(params)} cannot be set.")
        known = self.parameters(part)
        if not (isinstance(part, Part) and _takes_anything(signature(_class_of(self.registry, part)).parameters)):
            _refuse_unknown([key.partition("__")[0] for key in params], known, owner)
        # Parts may be shared, as a choice of a search is; estimators are changed in place, as in scikit-learn.
        return (clone(part) if isinstance(part, Part) else part).set_params(**params)


class Composed(CarriesParts):
    """An estimator with the parameters of its parts as ``<slot>__<parameter>``, also of those that are only named.

    A subclass says by :meth:`_slots` what its slots are.

    Examples
    --------
    >>> from mmdls.registry import poolings
    >>> class Model(Composed, BaseEstimator):
    ...     def __init__(self, pooling="mean"):
    ...         self.pooling = pooling
    ...
    ...     def _slots(self):
    ...         return {"pooling": Slot(poolings)}
    >>> Model().set_params(pooling="gated_attention", pooling__hidden_features=8).pooling
    Part('gated_attention', hidden_features=8)
    """

    def _slots(self) -> dict[str, Slot]:
        """The slots, by name."""
        raise NotImplementedError

    def _unread(self, X: Any) -> set[str]:
        """The slots by which nothing in X is read; a search on X leaves them out."""
        return set()

    def _held(self, slot: str) -> Any:
        """What stands in a slot."""
        return getattr(self, slot)

    def _hold(self, slot: str, value: Any) -> None:
        """Put something into a slot."""
        setattr(self, slot, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of this estimator and, if deep, of its parts as ``<slot>__<parameter>``.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict of str to object
        """
        params = super().get_params(deep=False)  # type: ignore[misc]
        if deep:
            for name, slot in self._slots().items():
                params[name] = self._held(name)
                params |= {f"{name}__{key}": value for key, value in slot.parameters(params[name]).items()}
        return params

    def set_params(self, **params: Any) -> Any:
        """Set parameters, those of a part as ``<slot>__<parameter>``.

        Parts are set before their parameters, in whatever order they are given.

        Parameters
        ----------
        **params

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            If there is no such parameter; the message lists the known ones, the closest first.
        """
        own = self.get_params(deep=False)
        for name in own.keys() & params.keys():
            setattr(self, name, params[name])
        slots = self._slots()
        nested: dict[str, dict[str, Any]] = {}
        for key, value in params.items():
            slot, inside, name = key.partition("__")
            if key in own:
                continue
            if slot not in slots:
                _refuse_unknown([key], {**own, **slots}, type(self).__name__)
            if inside:
                nested.setdefault(slot, {})[name] = value
            else:
                self._hold(slot, value)
        for name, values in nested.items():
            self._hold(name, slots[name].changed(self._held(name), values, name))
        return self


def _class_of(registry: Mapping[str, Any], part: Part) -> Any:
    return part.name if callable(part.name) else registry[part.name]


def _defaults(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The parameters that have a default, which are those that a user may set."""
    return {name: p.default for name, p in parameters.items() if p.default is not Parameter.empty}


def _takes_anything(parameters: Mapping[str, Parameter]) -> bool:
    return any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def _refuse_unknown(names: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise ValueError for the first name that is not known."""
    own = {name for name in known if "__" not in name}
    for name in names:
        if name not in own:
            closest = sorted(own, key=lambda one: (-SequenceMatcher(None, one, name).ratio(), one))
            offered = f"it has {', '.join(map(repr, closest))}" if closest else "it has none"
            raise ValueError(f"{owner} has no parameter {name!r}; {offered}.")
