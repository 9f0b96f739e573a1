"""A block of columns to complete, scaled numbers."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from mmdls.registry import estimators

__all__ = ["TabularEncoder"]


@estimators.register("tabular_encoder")
class TabularEncoder(TransformerMixin, BaseEstimator):
    """Impute, scale, one-hot encode and mark what was missing, all learned from the training rows.

    Columns of numbers and booleans are imputed and scaled. Columns of strings (``"60"`` too) and categories become one
    column a category seen in ``fit``; a missing value or a category not seen in ``fit`` is all zeros. Dates are
    refused. As a part of :class:`MMDLS` a network of ``hidden_sizes`` follows, trained end to end.

    Parameters
    ----------
    impute : {"median", "mean", None}, default="median"
        What stands in for a missing number; None leaves it missing.
    scale : {"power", "standard", None}, default="power"
        ``"standard"`` brings numbers to mean 0 and standard deviation 1; ``"power"`` does so after a Yeo-Johnson
        transform, which straightens the long tails of SUV, volumes and radiomics; neither depends on a column's unit,
        since each is first brought to a typical size of 10. A steep power overflows far outside of what it was fitted
        on, so numbers are cut where they leave the training rows' range by more than its width. None leaves numbers as
        they are.
    indicators : bool, default=True
        Add a column of 0 and 1 for each column that had missing values in ``fit``.
    hidden_sizes : sequence of int, default=()
        Widths of the network's layers as a part of :class:`MMDLS`; alone it has no meaning.

    Attributes
    ----------
    categories_ : dict of str to ndarray
        The categories of each column that is one-hot encoded.
    fill_ : ndarray of shape (n_numbers,)
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X was a table.

    Warns
    -----
    UserWarning
        If a column has no value at all in ``fit``: it is filled with zeros, or stays missing, and can tell nothing.

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60.0, None, 70.0], "clinical_sex": ["F", "M", "F"]})
    >>> encoder = TabularEncoder(scale=None).fit(X)
    >>> encoder.transform(X)
    array([[60.,  1.,  0.,  0.],
           [65.,  0.,  1.,  1.],
           [70.,  1.,  0.,  0.]])
    >>> encoder.get_feature_names_out().tolist()
    ['clinical_age', 'clinical_sex_F', 'clinical_sex_M', 'clinical_age_missing']
    """

    def __init__(
        self,
        *,
        impute: str | None = "median",
        scale: str | None = "power",
        indicators: bool = True,
        hidden_sizes: Sequence[int] = (),
    ):
        self.impute = impute
        self.scale = scale
        self.indicators = indicators
        self.hidden_sizes = hidden_sizes

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"indicators": optuna.distributions.CategoricalDistribution([True, False])}

    def fit(self, X: Any, y: Any = None) -> "TabularEncoder":
        """Learn fillings, scales and categories.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)
            Numbers, booleans, strings or categories; missing values allowed, infinite ones refused.
        y : ignored

        Returns
        -------
        TabularEncoder
        """
        if self.impute not in ("median", "mean", None):
            raise ValueError(f"impute must be 'median', 'mean' or None; got {self.impute!r}.")
        if self.scale not in ("power", "standard", None):
            raise ValueError(f"scale must be 'power', 'standard' or None; got {self.scale!r}.")
        table = self._table(X, reset=True)
        self._columns = table.columns
        self._numbers = [c for c in table.columns if _is_number(table[c])]
        self.categories_ = {
            c: np.asarray(sorted(table[c].dropna().unique(), key=str), dtype=object)
            for c in table.columns
            if c not in self._numbers
        }
        numbers = _to_numbers(table, self._numbers)
        self._empty = np.isnan(numbers).all(axis=0)
        empty = [c for c, gone in zip(self._numbers, self._empty, strict=True) if gone]
        empty += [c for c, categories in self.categories_.items() if not len(categories)]
        if empty:
            warnings.warn(
                f"the columns {empty} have no value in any of the {len(table)} training rows; they "
                + ("stay missing" if self.impute is None else "are filled with zeros")
                + " and tell nothing. Drop them, or look for the rows that should have values.",
                stacklevel=2,
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice|Mean of empty slice")
            fill = np.nanmean(numbers, axis=0) if self.impute == "mean" else np.nanmedian(numbers, axis=0)
        self.fill_ = np.nan_to_num(fill)
        self._scalers = self._fit_scalers(self._filled(numbers))
        self._with_missing = [c for c in table.columns if self.indicators and table[c].isna().any() and c not in empty]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Give complete numbers.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
        """
        check_is_fitted(self, "fill_")
        table = self._table(X, reset=False)
        numbers = self._filled(_to_numbers(table, self._numbers))
        blocks = [self._scaled(numbers)]
        for column, categories in self.categories_.items():
            codes = pd.Index(categories).get_indexer(table[column])
            blocks.append((codes[:, None] == np.arange(len(categories))).astype(float))
        if self._with_missing:
            blocks.append(table[self._with_missing].isna().to_numpy(dtype=float))
        return np.column_stack(blocks)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that come out."""
        check_is_fitted(self, "fill_")
        names = [str(c) for c in self._numbers]
        names += [f"{column}_{category}" for column, kinds in self.categories_.items() for category in kinds]
        names += [f"{column}_missing" for column in self._with_missing]
        return np.asarray(names, dtype=object)

    def _filled(self, numbers: np.ndarray) -> np.ndarray:
        # What had no value in fit cannot mean anything later either.
        numbers = np.where(self._empty, np.nan, numbers)
        return numbers if self.impute is None else np.where(np.isnan(numbers), self.fill_, numbers)

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        scaled = numbers.copy()
        for columns, scaler in self._scalers:
            scaled[:, columns] = scaler.transform(numbers[:, columns])
        return scaled

    def _fit_scalers(self, numbers: np.ndarray) -> list[tuple[np.ndarray, Any]]:
        """Scalers of columns: (which, fitted scaler)."""
        if self.scale is None:
            return []
        # A power changes nothing of a column with two values, and is undefined for a constant one.
        kinds = np.array([len(np.unique(column[~np.isnan(column)])) for column in numbers.T])
        curved = (kinds > 2) & (self.scale == "power")
        power = make_pipeline(_TypicalSizeScaler(), PowerTransformer())
        pairs = [(np.flatnonzero(curved), power), (np.flatnonzero(~curved), StandardScaler())]
        return [(columns, scaler.fit(numbers[:, columns])) for columns, scaler in pairs if len(columns)]

    def _table(self, X: Any, *, reset: bool) -> pd.DataFrame:
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if len(X) == 0:
                raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required by TabularEncoder.")
            table = X
        else:
            values = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
            table = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
        # scikit-learn lets a table follow an array and the other way round; the place of a column then decides.
        return table if reset else table.set_axis(self._columns, axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class _TypicalSizeScaler(TransformerMixin, BaseEstimator):
    """Bring columns to a typical size of 10, and cut what leaves their range by more than its width.

    Typical is the median size of the numbers other than 0.

    A Yeo-Johnson transform is nearly a line for sizes far below 1 and a power or logarithm far above, so the unit would
    decide what it can do. At 10 it can straighten positive numbers with a long tail, whatever their unit.
    """

    def fit(self, X: np.ndarray, y: Any = None) -> "_TypicalSizeScaler":
        self.sizes_ = np.nanmedian(np.where(X == 0, np.nan, np.abs(X)), axis=0)
        low, high = np.nanmin(X, axis=0), np.nanmax(X, axis=0)
        self.limits_ = 2 * low - high, 2 * high - low
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return 10 * np.clip(X, *self.limits_) / self.sizes_


def _is_number(column: pd.Series) -> bool:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind.startswith(("date", "time", "period")):
        raise ValueError(
            f"column {column.name!r} holds {kind}; give a number instead, such as months since diagnosis, or drop it."
        )
    # A column without any value has no kind; as a number it is imputed and marked like any other.
    return kind in ("boolean", "integer", "floating", "mixed-integer-float", "decimal") or bool(column.isna().all())


def _to_numbers(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """The columns as floats, (n, k); NaN where missing."""
    numbers = np.empty((len(table), len(columns)))
    for i, column in enumerate(columns):
        try:
            numbers[:, i] = table[column].to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"column {column!r} held numbers in fit and holds {table[column].dtype} now, for example "
                f"{table[column].dropna().iloc[0]!r}; convert it to numbers."
            ) from error
        infinite = np.isinf(numbers[:, i])
        if infinite.any():
            raise ValueError(
                f"column {column!r} is infinite in rows {list(table.index[infinite][:5])}; Input X contains infinity. "
                "Give a finite number, or NaN if unknown."
            )
    return numbers
