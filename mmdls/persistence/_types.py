"""Which classes and functions a saved model may name: an explicit list, and what is registered.

A class is found by its name, and never called: an object is made empty and gets its attributes. So nothing that a file
says is executed, whatever it says.

A class of this library is named by its package, such as ``mmdls.estimators:SliceEncoder``, not by the file inside the
package that it stands in: that file may move, and models saved before are still read.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from inspect import isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from sklearn.base import BaseEstimator
from sklearn.gaussian_process.kernels import Kernel
from sklearn.metrics._scorer import _BaseScorer
from sklearn.model_selection import BaseCrossValidator
from sklearn.model_selection._split import BaseShuffleSplit, _RepeatedSplits
from torch import nn

from mmdls import registry
from mmdls.cohort import Task
from mmdls.encoders import Encoder
from mmdls.registry import Registry

__all__ = ["UnregisteredError", "class_named", "class_reference", "function_named", "function_reference"]

# What may stand in a file besides estimators, networks and tasks of these packages.
_BASES: dict[str, tuple[type, ...]] = {
    "mmdls": (BaseEstimator, nn.Module, Task, Encoder, BasePruner, BaseSampler),
    "sklearn": (BaseEstimator, BaseCrossValidator, BaseShuffleSplit, _RepeatedSplits, _BaseScorer, Kernel),
    "sksurv": (BaseEstimator,),
    "torch": (nn.Module,),
    "optuna": (BasePruner, BaseSampler),
}
_HOMES = {"torch": "torch.nn.modules."}
_OTHERS = frozenset(
    (
        "mmdls.estimators:CentreEffects",
        "mmdls.evaluation:Scorer",
        "mmdls.metrics:CensoringDistribution",
        "mmdls.model_selection:CohortKFold",
        "mmdls.training:Completion",
        "mmdls.training:WeightsOrigin",
        "mmdls.uncertainty:KaplanMeierCensoring",
        "mmdls.uncertainty:ModelledCensoring",
        "mmdls.zoo:FirstFold",
        "optuna.samplers._lazy_random_state:LazyRandomState",
        "optuna.search_space.group_decomposed:_GroupDecomposedSearchSpace",
        "optuna.search_space.group_decomposed:_SearchSpaceGroup",
        "optuna.search_space.intersection:IntersectionSearchSpace",
        "sklearn.calibration:_CalibratedClassifier",
        "sklearn.compose._column_transformer:make_column_selector",
        "sklearn.metrics._scorer:_MultimetricScorer",
        "sklearn.metrics._scorer:_PassthroughScorer",
        "sklearn.neural_network._stochastic_optimizers:AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers:SGDOptimizer",
        "sklearn.utils._metadata_requests:MetadataRequest",
        "sklearn.utils._metadata_requests:MethodMetadataRequest",
        "sksurv.functions:StepFunction",
        "sksurv.linear_model.coxph:BreslowEstimator",
    )
)
# Functions that a file may name, by the module from which they are taken: they compute, and do nothing else.
_FUNCTIONS: dict[str, frozenset[str] | None] = {
    "sklearn.feature_selection": None,
    "sklearn.metrics": None,
    "mmdls.metrics": None,
    "mmdls.zoo._tables": frozenset(("mean_auc",)),
    "torch.nn.functional": frozenset(("relu", "gelu", "silu", "leaky_relu", "elu", "softplus")),
    "optuna.samplers._tpe.sampler": frozenset(("default_gamma", "hyperopt_default_gamma", "default_weights")),
}
_ERRORS = {
    f"{cls.__module__}:{cls.__name__}": cls
    for cls in (
        *Exception.__subclasses__(),
        *ArithmeticError.__subclasses__(),
        *LookupError.__subclasses__(),
        *RuntimeError.__subclasses__(),
        *OSError.__subclasses__(),
        Exception,
        np.linalg.LinAlgError,
    )
    if cls.__module__ in ("builtins", "numpy.linalg")
}

# What may come from other packages and notebooks, if they register something.
_REGISTRABLE = (BaseEstimator, nn.Module, Task, Encoder)
_REGISTRIES = {value.kind: value for value in vars(registry).values() if isinstance(value, Registry)}


class UnregisteredError(TypeError):
    """A model holds a class of somebody else's that is in no registry, so that no file can name it."""


def class_reference(cls: type, path: str) -> dict[str, Any]:
    """How a file names a class.

    Parameters
    ----------
    cls : type
    path : str
        Where it stands in the model, for the message.

    Raises
    ------
    TypeError
        If a file may not name it.
    """
    name = _name_of(cls)
    if name in _ERRORS:
        return {"name": name}
    if issubclass(cls, np.generic):
        return {"name": f"numpy:{cls.__name__}"}
    if _is_listed(cls):
        return {"name": name}
    for kind, parts in _REGISTRIES.items():
        for key, part in parts._parts.items():
            if part is cls:
                return {"name": name, "registered": [kind, key]}
    if issubclass(cls, _REGISTRABLE) and (voucher := _voucher(cls.__module__)):
        return {"name": name, "registered": voucher}
    refused = f"{path} is of class {name}, which a saved model may not hold"
    if cls.__name__ in ("KDTree", "BallTree"):
        raise TypeError(f"{refused}; fit the neighbours with algorithm='brute'.")
    if issubclass(cls, _REGISTRABLE):
        own = cls.__name__
        raise UnregisteredError(
            f"{refused}; register it under a name of its own, as with mmdls.registry.{_kind_for(cls, path)}.register("
            f"{own.lower()!r})({own}), here in this session, and save again: the model need not be fitted again. Where "
            "it is loaded, the class must be registered under the same name."
        )
    raise TypeError(f"{refused}; take it out of the model.")


def _kind_for(cls: type, path: str) -> str:
    """The registry that a class belongs into, by where it stands in a model and by the methods that it has."""
    for word in reversed(re.findall(r"\w+", path)[1:]):
        if f"{word}s" in _REGISTRIES:
            return "volume_backbones" if word == "backbone" and "spacing" in signature(cls).parameters else f"{word}s"
    fitting = [kind for kind, parts in _REGISTRIES.items() if all(hasattr(cls, method) for method in parts.needs)]
    return max(fitting, key=lambda kind: len(_REGISTRIES[kind].needs), default="estimators")


def class_named(reference: Any) -> type:
    """The class that a file names.

    Raises
    ------
    ValueError
        If a file may not name it.
    ImportError
        If it belongs to a registered part that is not registered here; the message says what to import.
    """
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        raise ValueError(f"the file names a class in an unknown way: {str(reference)[:100]}.")
    name, registered = reference["name"], reference.get("registered")
    module, _, qualname = name.partition(":")
    if registered is not None:
        return _registered(module, qualname, registered)
    if name in _ERRORS:
        return _ERRORS[name]
    if module == "numpy" and isinstance(found := getattr(np, qualname, None), type) and issubclass(found, np.generic):
        return found
    package = module.partition(".")[0]
    if package in _BASES and all(part.isidentifier() for part in module.split(".")):
        found = _found(_home_of(module), qualname)
        if found is not None:
            return found
    raise ValueError(
        f"the file names the class {name!r}, which a saved model may not hold, or which these versions of the "
        "libraries lack; load it with the versions of its manifest, if you trust where it comes from."
    )


def function_reference(function: Any, path: str) -> str:
    """How a file names a function; TypeError if it may not."""
    name = getattr(function, "__name__", "")
    if isinstance(function, np.ufunc) and getattr(np, name, None) is function:
        return f"numpy:{name}"
    for module in _FUNCTIONS:
        if _is_offered(module, name) and getattr(import_module(module), name, None) is function:
            return f"{module}:{name}"
    raise TypeError(
        f"{path} is the function {getattr(function, '__qualname__', function)!r}; a saved model holds no code. "
        "Functions of sklearn.metrics, sklearn.feature_selection and mmdls.metrics, and those of numpy that work on "
        "every element, are saved by name. Replace it by one of them, or by a registered class (a function from images "
        "to features: by one derived from nn.Module); of a search, save best_estimator_ alone."
    )


def function_named(name: Any) -> Any:
    """The function that a file names; ValueError if it may not."""
    module, _, own = str(name).partition(":")
    if module == "numpy" and isinstance(found := getattr(np, own, None), np.ufunc):
        return found
    if _is_offered(module, own) and callable(found := getattr(import_module(module), own, None)):
        return found
    raise ValueError(f"the file names the function {name!r}, which a saved model may not hold.")


def _is_offered(module: str, name: str) -> bool:
    if module not in _FUNCTIONS:
        return False
    offered = _FUNCTIONS[module]
    if offered is not None:
        return name in offered
    found = import_module(module)
    return name in found.__all__ and isfunction(getattr(found, name))


def _name_of(cls: type) -> str:
    """The name of a class in a file."""
    return f"{_home_of(cls.__module__)}:{cls.__qualname__}"


def _home_of(module: str) -> str:
    """The module that a file names for a class: of this library the package, otherwise the module itself."""
    return ".".join(module.split(".")[:2]) if module.startswith("mmdls.") else module


@cache
def _found(home: str, qualname: str) -> type | None:
    """The class of this name that may stand in a file, None if there is none."""
    try:
        for module in _modules_of(home):
            cls = _attribute(module, qualname)
            if isinstance(cls, type) and _name_of(cls) == f"{home}:{qualname}" and _is_listed(cls):
                return cls
    except ImportError:
        pass
    return None


def _modules_of(home: str) -> Iterator[ModuleType]:
    """A module and, of a package of this library, the modules in it."""
    first = import_module(home)
    yield first
    folders = getattr(first, "__path__", ()) if home.startswith("mmdls.") else ()
    for folder in map(Path, folders):
        for file in sorted(file for file in folder.rglob("*.py") if not file.stem.startswith("__")):
            yield import_module(".".join((home, *file.relative_to(folder).with_suffix("").parts)))


def _is_listed(cls: type) -> bool:
    """Whether a class of this library, or of those below it, may stand in a file."""
    package = cls.__module__.partition(".")[0]
    if _name_of(cls) in _OTHERS:
        return True
    return (
        package in _BASES
        and f"{cls.__module__}.".startswith(_HOMES.get(package, f"{package}."))
        and issubclass(cls, _BASES[package])
    )


def _voucher(module: str) -> list[str] | None:
    """A registered part of the same package, which vouches for classes that it brings along."""
    package = module.partition(".")[0]
    if package in _BASES:
        return None
    for kind, parts in _REGISTRIES.items():
        for key, part in parts._parts.items():
            if part.__module__.partition(".")[0] == package:
                return [kind, key]
    return None


def _registered(module: str, qualname: str, registered: Any) -> type:
    """A class that is registered, or that comes along with one that is; nothing is imported by a name of the file."""
    kind, key = registered if isinstance(registered, list) and len(registered) == 2 else (None, None)
    name = f"{module}:{qualname}"
    if kind not in _REGISTRIES or not isinstance(key, str):
        raise ValueError(
            f"the file says that {name!r} is registered as {str(registered)[:100]}; there is no such kind."
        )
    parts = _REGISTRIES[kind]
    source = (
        "a notebook or script; run its definition here"
        if module == "__main__"
        else f"the module {module!r}; install and import it"
    )
    if key not in parts:
        raise ImportError(
            f"the model uses {kind}[{key!r}] (the class {qualname!r}), which is not registered here. It comes from "
            f"{source} (with mmdls.registry.{kind}.register({key!r})), then load the model again. Registered are "
            f"{', '.join(parts)}."
        )
    part = parts[key]
    if part.__qualname__ == qualname:
        return part
    found = _attribute(sys.modules.get(part.__module__), qualname)
    if found is None and module.partition(".")[0] == part.__module__.partition(".")[0]:
        found = _attribute(sys.modules.get(module), qualname)
    package = part.__module__.partition(".")[0]
    if isinstance(found, type) and issubclass(found, _REGISTRABLE) and found.__module__.partition(".")[0] == package:
        return found
    raise ImportError(
        f"the model uses the class {qualname!r}, which comes with {kind}[{key!r}] from {source}. Registered here "
        f"under that name is {part.__module__}:{part.__qualname__}, which does not bring it along."
    )


def _attribute(module: Any, qualname: str) -> Any:
    """What a dotted name means in a module, None if it means nothing."""
    for part in qualname.split("."):
        module = getattr(module, part, None)
    return module
