"""Columns that measure the same when they are measured again."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from mmdls._parameters import Finite, count
from mmdls.cohort import refuse_other_tables
from mmdls.estimators.columns._columns import number_table
from mmdls.metrics import intraclass_correlation
from mmdls.registry import estimators

__all__ = ["StabilityFilter"]


@estimators.register("stability_filter")
class StabilityFilter(SelectorMixin, BaseEstimator):
    """Keep the columns whose repeated measurements agree: test and retest, or masks drawn or perturbed again.

    Parameters
    ----------
    threshold : float, default=0.75
        Least intraclass correlation of a column that is kept.
    form : {"ICC(1,1)", "ICC(2,1)", "ICC(3,1)"}, default="ICC(2,1)"
        Which intraclass correlation; see :func:`mmdls.metrics.intraclass_correlation`.
    repeats : sequence of DataFrames or arrays, or DataFrame, default=None
        All measurements, the first one too. A sequence has one table a repetition, each with the same patients; one
        DataFrame has one row a measurement, and its index, the patient, as often as it was measured. ``fit`` takes it
        too, which is how it is routed.
    patients : {"fitted", "all"}, default="fitted"
        Whose measurements count: ``"fitted"`` those of patients in the X of ``fit``, by id, so that in cross-validation
        no left-out patient has a say; ``"all"`` everybody's, as for a separate test-retest study.
    min_patients : int, default=10
        Least number of patients with all measurements of a column. A column with fewer is not kept.

    Attributes
    ----------
    stability_ : pandas.DataFrame
        ``icc``, ``n_patients`` and ``kept`` of each column that was measured again.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    Columns of X that ``repeats`` lacks pass unchanged, as clinical variables do, unless ``repeats`` has others of their
    block. Outcomes are never read.

    References
    ----------
    Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychological Bulletin, 1979.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(30, 2)), columns=["radiomics_volume", "radiomics_noise"])
    >>> again = X + rng.normal(size=(30, 2)) * [0.1, 3.0]
    >>> list(StabilityFilter(repeats=[X, again]).fit(X).get_feature_names_out())
    ['radiomics_volume']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "threshold": [Finite(Real, -1, 1, closed="both")],
        "form": [StrOptions({"ICC(1,1)", "ICC(2,1)", "ICC(3,1)"})],
        "repeats": ["array-like", list, tuple, None],
        "patients": [StrOptions({"fitted", "all"})],
        "min_patients": [count(2)],
    }

    def __init__(
        self,
        *,
        threshold: float = 0.75,
        form: str = "ICC(2,1)",
        repeats: Any = None,
        patients: str = "fitted",
        min_patients: int = 10,
    ):
        self.threshold = threshold
        self.form = form
        self.repeats = repeats
        self.patients = patients
        self.min_patients = min_patients

    def fit(self, X: Any, y: Any = None, repeats: Any = None) -> "StabilityFilter":
        """Measure the agreement of every column.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_columns)
        y : default=None
            Never read.
        repeats : default=None
            As the parameter, in whose place it stands.

        Returns
        -------
        StabilityFilter

        Raises
        ------
        ValueError
            If there are no repeated measurements, they do not fit X, or no column is stable.
        """
        self._validate_params()
        refuse_other_tables(X, "X")
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, skip_check_array=True)
        else:
            X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        given = self.repeats if repeats is None else repeats
        if given is None:
            raise ValueError("StabilityFilter needs repeated measurements: give it repeats=[first, second, ...].")
        names = list(X.columns) if isinstance(X, pd.DataFrame) else list(range(self.n_features_in_))
        tables = [self._named(table, names) for table in _by_repetition(given)]
        judged = self._judged(names, tables)
        patients = tables[0].index
        for table in tables[1:]:
            if set(table.index) != set(patients) or not table.index.is_unique:
                raise ValueError("each table of repeats must have the same patients, each of them once.")
        if self.patients == "fitted" and isinstance(X, pd.DataFrame):
            patients = patients[patients.isin(X.index)]
            if not len(patients):
                raise ValueError(
                    f"none of the patients of repeats, such as {list(tables[0].index[:3])}, is in X, such as "
                    f'{list(X.index[:3])}. For measurements of other patients, set patients="all".'
                )
        values = np.stack([number_table(table.loc[patients, judged]) for table in tables], axis=1)
        rows = {name: self._agreement(values[:, :, i]) for i, name in enumerate(judged)}
        self.stability_ = pd.DataFrame.from_dict(rows, orient="index", columns=["icc", "n_patients"])
        self.stability_["kept"] = self.stability_["icc"] >= self.threshold
        dropped = set(self.stability_.index[~self.stability_["kept"]])
        self.kept_ = np.array([name not in dropped for name in names])
        if not self.stability_["kept"].any():
            best = self.stability_["icc"].max()
            raise ValueError(
                f"no column has an {self.form} of {self.threshold} or more in {self.min_patients} patients or more: "
                f"the largest is {best:.3f}, in {len(patients)} patients with repeats. Lower either, or leave it out."
            )
        return self

    def transform(self, X: Any) -> Any:
        """The columns that are kept.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_columns)

        Returns
        -------
        pandas.DataFrame or ndarray of shape (n_patients, n_kept)
            A table if X is one.
        """
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame):
            return super().transform(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        return X.loc[:, self.kept_]

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self, "kept_")
        return self.kept_

    def _agreement(self, values: np.ndarray) -> tuple[float, int]:
        """Intraclass correlation of one column (n_patients, n_repeats), and of how many patients."""
        complete = values[np.isfinite(values).all(axis=1)]
        if len(complete) < self.min_patients or np.ptp(complete) == 0:
            return np.nan, len(complete)
        return float(intraclass_correlation(complete, self.form)), len(complete)

    def _named(self, table: Any, names: list[Any]) -> pd.DataFrame:
        if isinstance(table, pd.DataFrame):
            return table
        values = np.asarray(table)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise ValueError(
                f"an array of repeats must have the {len(names)} columns of X; got the shape {values.shape}. Give "
                "DataFrames to measure only some columns again."
            )
        return pd.DataFrame(values, columns=names)

    def _judged(self, names: list[Any], tables: Sequence[pd.DataFrame]) -> list[Any]:
        """The columns that were measured again, in the order of X."""
        measured = set(tables[0].columns)
        if any(set(table.columns) != measured for table in tables):
            raise ValueError("the tables of repeats must have the same columns.")
        if unknown := [name for name in tables[0].columns if name not in names]:
            raise ValueError(f"repeats has the columns {unknown[:5]}, which X lacks. Columns of X: {names[:30]}.")
        blocks = {str(name).partition("_")[0] for name in measured}
        once = [name for name in names if name not in measured and str(name).partition("_")[0] in blocks]
        if once:
            raise ValueError(
                f"repeats lacks {once[:5]} ({len(once)} in all), and has other columns of the same block. Measure all "
                "of a block again, or drop those from X."
            )
        return [name for name in names if name in measured]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _by_repetition(repeats: Any) -> list[Any]:
    """One table a repetition."""
    if isinstance(repeats, pd.DataFrame):
        number = repeats.groupby(level=0).cumcount()
        sizes = number.groupby(level=0).size()
        if sizes.nunique() != 1:
            raise ValueError(
                f"every patient needs the same number of measurements; repeats has {sizes.min()} of "
                f"{sizes.idxmin()!r} and {sizes.max()} of {sizes.idxmax()!r}. Leave some out, or fill up with NaN rows."
            )
        tables = [repeats[number.to_numpy() == k] for k in range(sizes.iloc[0])]
    else:
        tables = list(repeats)
    if len(tables) < 2:
        raise ValueError(f"repeats needs two measurements or more, the first one too; got {len(tables)}.")
    return tables
