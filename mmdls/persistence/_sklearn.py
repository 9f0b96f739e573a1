"""Parts of scikit-learn and scikit-survival without tensors, written and read by skops."""

import io
import math
import types
import zipfile
from typing import Any

import numpy as np
import skops.io

__all__ = ["is_of_sklearn", "read_part", "write_part"]

_PACKAGES = ("sklearn", "sksurv")
_MAY_HOLD = {"builtins", "collections", "numpy", "scipy", "sklearn", "sksurv"}
_SPLINE = "scipy.interpolate._bsplines.BSpline"  # is read, and not written any more: its inside differs by version
# What skops does not trust by itself: estimators of scikit-survival, and what they are made of.
TRUSTED = (
    "sklearn._loss.link.Interval",
    # Trees and splines are checked in :mod:`._compiled` once they are read.
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    _SPLINE,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sksurv.ensemble.boosting.ComponentwiseGradientBoostingSurvivalAnalysis",
    "sksurv.ensemble.boosting.GradientBoostingSurvivalAnalysis",
    "sksurv.ensemble.forest.ExtraSurvivalTrees",
    "sksurv.ensemble.forest.RandomSurvivalForest",
    "sksurv.ensemble.survival_loss.CensoredSquaredLoss",
    "sksurv.ensemble.survival_loss.CoxPH",
    "sksurv.ensemble.survival_loss.IPCWLeastSquaresError",
    "sksurv.functions.StepFunction",
    "sksurv.linear_model.aft.IPCRidge",
    "sksurv.linear_model.coxnet.CoxnetSurvivalAnalysis",
    "sksurv.linear_model.coxph.BreslowEstimator",
    "sksurv.linear_model.coxph.CoxPHOptimizer",
    "sksurv.linear_model.coxph.CoxPHSurvivalAnalysis",
    "sksurv.preprocessing.OneHotEncoder",
    "sksurv.tree.tree.SurvivalTree",
)


def is_of_sklearn(value: Any) -> bool:
    """Whether a value is of scikit-learn or scikit-survival, and so is all that it holds."""
    return type(value).__module__.partition(".")[0] in _PACKAGES and _holds_no_other(value, set())


def _holds_no_other(value: Any, known: set[int]) -> bool:
    if id(value) in known:
        return True
    known.add(id(value))
    if isinstance(value, types.ModuleType):
        return False
    if isinstance(value, types.FunctionType | types.MethodType | type):
        return (value.__module__ or "").partition(".")[0] in _MAY_HOLD - {"builtins"}
    if type(value).__module__.partition(".")[0] not in _MAY_HOLD:
        return False
    if isinstance(value, dict):
        return all(_holds_no_other(each, known) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(_holds_no_other(each, known) for each in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "O" or all(_holds_no_other(each, known) for each in value.ravel())
    return all(_holds_no_other(each, known) for each in vars(value).values()) if hasattr(value, "__dict__") else True


def write_part(value: Any) -> bytes | None:
    """The bytes of a part, None if skops writes what it would not read without trusting more than the list above."""
    try:
        data = skops.io.dumps(value)
    except (TypeError, ValueError, AttributeError):  # what skops does not know is written otherwise, or refused
        return None
    return data if set(skops.io.get_untrusted_types(data=data)) <= set(TRUSTED) - {_SPLINE} else None


def read_part(data: bytes) -> Any:
    """A part from its bytes.

    Raises
    ------
    ValueError
        If they are no such part, or hold types that are not trusted.
    """
    _check_archive(data)
    strange = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
    if strange:
        raise ValueError(f"the file holds the types {sorted(strange)}, which are not trusted.")
    part = skops.io.loads(data, trusted=list(TRUSTED))
    if not is_of_sklearn(part):
        raise ValueError(f"the file holds a {type(part).__name__} where a part of scikit-learn should be.")
    return part


def _check_archive(data: bytes) -> None:
    """Members are as long as they say, arrays as long as their shape says, before anything is read from them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        if not stored or sum(info.file_size for info in infos) > len(data):
            raise ValueError("a part of scikit-learn is packed in an unknown way.")
        if len({info.filename for info in infos}) < len(infos):
            raise ValueError("a part of scikit-learn has a member twice.")
        for info in infos:
            if info.filename.endswith(".npy"):
                with archive.open(info) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
                    raise ValueError("a part of scikit-learn has an array longer than its member, or of objects.")
