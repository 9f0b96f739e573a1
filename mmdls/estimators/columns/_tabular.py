"""A block of columns to complete, scaled numbers."""

import warnings
from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import optuna
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from mmdls._parameters import share
from mmdls.cohort import refuse_other_tables
from mmdls.cohort._alignment import check_columns_once
from mmdls.cohort._cells import plain_columns, take_columns
from mmdls.encoders import Encoder, TableData
from mmdls.estimators.columns._columns import MISSING, UNSEEN, Cells, number_table, plain_numbers
from mmdls.estimators.columns._quantiles import weighted_quantile
from mmdls.estimators.columns._scaling import NumberScaler
from mmdls.registry import encoders, estimators
from mmdls.training._tables import patient_weights

if TYPE_CHECKING:
    from mmdls.estimators.columns._transformer_encoder import TransformerEncoder
    from mmdls.modules import TabularNet

__all__ = ["TabularEncoder"]


@encoders.register("table")
@estimators.register("tabular_encoder")
class TabularEncoder(Encoder, TransformerMixin, BaseEstimator):
    """Impute, scale, one-hot encode and mark what was missing, all learned from the training rows.

    Columns of numbers and booleans are imputed and scaled, in any dtype: numbers written as text are read as numbers,
    with a warning, and refused with the words and rows if other words stand between them. Other texts, and whatever has
    a categorical dtype, become one column a category seen in ``fit``; a missing value or a category not seen in ``fit``
    is all zeros. An ordered categorical is one column of numbers instead, the place of the category in the order (0, 1,
    ...); a category that is not in the order is missing. Text "1", 1, 1.0 and True are the same number and the same
    category; a blank text is missing. Dates, and texts that differ from patient to patient, are refused. A column
    without any value in ``fit`` is ignored later.
    As a part of :class:`MMDLS` a network of ``hidden_sizes`` follows, trained end to end.

    Parameters
    ----------
    impute : {"median", "mean", None}, default="median"
        What stands in for a missing number; None leaves it missing.
    scale : {"power", "standard", None}, default="power"
        ``"standard"`` brings numbers to mean 0 and standard deviation 1; ``"power"`` does so after a Yeo-Johnson
        transform, which straightens the long tails of SUV, volumes and radiomics, and only does so where the transform
        would merge values. Neither depends on a column's unit, since each is first brought to a typical size of 10,
        and both keep the order of the values. A steep power overflows far outside of what it was fitted on, so with
        ``"power"`` numbers are cut where they leave the training rows' range by more than its width. A column that did
        not vary in ``fit`` becomes 0. None leaves numbers as they are.
    add_indicator : bool, default=True
        Add a column of 0 and 1 for each column that had missing values in ``fit``.
    hidden_sizes : sequence of int, default=()
        Widths of the network's layers as a part of :class:`MMDLS`; alone it has no meaning.
    dropout : float, default=0.1
        Behind each of these layers.
    linear : bool, default=True
        As a part of :class:`MMDLS`, let a ridge regression read the columns too; held-out patients weigh it against
        the networks. Of a patient without this table the columns are then what is expected given his other tables.

    Attributes
    ----------
    categories_ : dict of str to ndarray
        The categories of each column that is one-hot encoded, as texts; numbers in their order, then the others.
    fill_ : ndarray of shape (n_numbers,)
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X was a table.

    Warns
    -----
    UserWarning
        In ``fit``, of columns without any value, numbers written as text, categories that hardly any two patients
        share, categories that differ by case only, and texts such as "nan"; in ``transform``, of
        categories that were not seen in ``fit``, with their number.

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
        add_indicator: bool = True,
        hidden_sizes: Sequence[int] = (),
        dropout: float = 0.1,
        linear: bool = True,
    ):
        self.impute = impute
        self.scale = scale
        self.add_indicator = add_indicator
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.linear = linear

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "impute": [StrOptions({"median", "mean"}), None],
        "scale": [StrOptions({"power", "standard"}), None],
        "add_indicator": ["boolean"],
        "hidden_sizes": [list, tuple, np.ndarray],
        "dropout": [share()],
        "linear": ["boolean"],
    }

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"add_indicator": optuna.distributions.CategoricalDistribution([True, False])}

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "TabularEncoder":
        """Fit imputation, scaling and categories.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)
            Numbers, booleans, strings or categories; missing values allowed, infinite ones refused.
        y : ignored
        sample_weight : array of shape (n_samples,), default=None
            A weight is a repetition; a row of weight 0 teaches nothing, not even that a category exists.

        Returns
        -------
        TabularEncoder
        """
        self._validate_params()
        if any(not isinstance(size, Integral) or size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes must hold whole numbers of at least 1; got {self.hidden_sizes!r}.")
        table = self._table(X, reset=True)
        weight = patient_weights(sample_weight, table.index, by_id=isinstance(X, pd.DataFrame))
        weight = np.ones(len(table)) if weight is None else weight
        table, weight = table[weight > 0], weight[weight > 0]
        self._columns = table.columns
        self._numbers, self._keys, self.categories_ = [], {}, {}
        self._orders: dict[str, list[str]] = {}
        self._empty: list[str] = []
        written, doubtful = [], []
        for name, plain in zip(table.columns, plain_columns(table), strict=True):
            if not plain and plain_numbers(table[name]) is None:
                cells = Cells.of(table[name])
                if cells.is_ordered:
                    self._orders[name] = list(dict.fromkeys(cells.keys))
                elif len(cells.present) and not cells.holds_numbers():
                    self._keys[name], self.categories_[name] = cells.categories()
                    doubtful += cells.doubts(self.categories_[name])
                    continue
                if not cells.is_ordered and cells.written[cells.present].any():
                    written.append(name)
            self._numbers.append(name)
        numbers, codes = self._read(table)
        self._empty = [c for c, gone in zip(self._numbers, np.isnan(numbers).all(axis=0), strict=True) if gone]
        if self._empty:
            warnings.warn(
                f"the columns {self._empty} have no value in any of the {len(table)} training rows; they "
                + ("stay missing" if self.impute is None else "are filled with zeros")
                + " and tell nothing. Drop them, or look for the rows that should have values.",
                stacklevel=2,
            )
        if written:
            doubtful.append(
                f"the columns {written} hold numbers written as text and are read as numbers; convert them with "
                "pd.to_numeric, or, if they are codes of categories, with X[column].astype('category')"
            )
        for doubt in doubtful:
            warnings.warn(f"{doubt}.", stacklevel=2)
        fill = _means(numbers, weight) if self.impute == "mean" else weighted_quantile(numbers, 0.5, weight)
        self.fill_ = np.nan_to_num(fill)
        if self.scale is not None:
            self._scaler = NumberScaler(power=self.scale == "power").fit(self._filled(numbers), sample_weight=weight)
        lost, empty = self._missing(numbers, codes), set(self._empty)
        with_missing = [c for c in table.columns if self.add_indicator and lost[c].any() and c not in empty]
        self._with_missing = with_missing
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Impute, scale and encode.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
        """
        check_is_fitted(self, "fill_")
        table = self._table(X, reset=False)
        numbers, codes = self._read(table)
        unseen = [
            f"{name!r} in {(column == UNSEEN).sum()} of {len(table)} rows: "
            + Cells.of(table[name][column == UNSEEN]).describe()
            for name, column in codes.items()
            if (column == UNSEEN).any()
        ]
        if unseen:
            warnings.warn(
                f"categories that were not seen in fit, and count as none: {'; '.join(unseen)}. Write them as in fit, "
                "or fit on patients of every category.",
                stacklevel=3,  # through scikit-learn's wrapper of transform
            )
        lost = self._missing(numbers, codes)
        filled = self._filled(numbers)
        blocks = [filled if self.scale is None else self._scaler.transform(filled)]
        for name, categories in self.categories_.items():
            blocks.append((codes[name][:, None] == np.arange(len(categories))).astype(float))
        blocks += [lost[name].astype(float) for name in self._with_missing]
        return np.column_stack(blocks)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that come out: of the column, its category, or ``_missing``; each name once.

        A name that two columns would share, such as that of a category called "missing", is written as
        ``column='category'`` and ``column is missing``. Columns of an array are called ``x0``, ``x1``, ..., or as
        ``input_features`` says.
        """
        check_is_fitted(self, "fill_")
        given = self._columns if input_features is None else _check_feature_names_in(self, input_features)
        called = dict(zip(self._columns, given, strict=True))
        names = [(str(called[c]), str(called[c])) for c in self._numbers]
        for c, kinds in self.categories_.items():
            names += [(f"{called[c]}_{kind}", f"{called[c]}={kind!r}") for kind in kinds]
        names += [(f"{called[c]}_missing", f"{called[c]} is missing") for c in self._with_missing]
        seen = Counter(short for short, _ in names)
        chosen = [short if seen[short] == 1 else long for short, long in names]
        # Columns may themselves be called like that.
        twice = {name for name, n in Counter(chosen).items() if n > 1}
        return np.asarray([f"{n} [{i}]" if n in twice else n for i, n in enumerate(chosen)], dtype=object)

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Fit imputation, scaling and categories; see :meth:`fit`."""
        self._as_part().fit_preprocessing(X, y, sample_weight)

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> TableData:
        """Complete numbers of all patients; see :meth:`transform`."""
        return self._as_part().prepare(X)

    def build(self, data: TableData) -> "TabularNet":
        """A multilayer perceptron of ``hidden_sizes``."""
        return self._as_part().build(data)

    def _as_part(self) -> "TransformerEncoder":
        from mmdls.estimators.columns._transformer_encoder import TransformerEncoder  # here: it imports torch

        return TransformerEncoder(self, self.hidden_sizes, self.dropout, self.linear)

    def _read(self, table: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Numbers (n, n_numbers), NaN where missing, and which category each cell of columns of categories holds."""
        codes = {name: Cells.of(table[name]).places(keys) for name, keys in (self._keys | self._orders).items()}
        numbers = np.full((len(table), len(self._numbers)), np.nan)
        # What had no value in fit cannot mean anything later either.
        apart = {*self._empty, *self._orders}
        read = [i for i, name in enumerate(self._numbers) if name not in apart]
        numbers[:, read] = number_table(take_columns(table, [self._numbers[i] for i in read]))
        infinite = np.isinf(numbers).any(axis=0)
        if infinite.any():
            place = int(infinite.argmax())
            rows = list(table.index[np.isinf(numbers[:, place])][:5])
            raise ValueError(
                f"column {self._numbers[place]!r} is infinite in rows {rows}; Input X contains infinity. Give a finite "
                "number, or NaN if unknown."
            )
        for i, name in enumerate(self._numbers):
            if name in self._orders and name not in self._empty:
                numbers[:, i] = np.where(codes[name] >= 0, codes[name], np.nan)
        return numbers, codes

    def _missing(self, numbers: np.ndarray, codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        lost = {name: np.isnan(column) for name, column in zip(self._numbers, numbers.T, strict=True)}
        return lost | {name: codes[name] == MISSING for name in self._keys}

    def _filled(self, numbers: np.ndarray) -> np.ndarray:
        return numbers if self.impute is None else np.where(np.isnan(numbers), self.fill_, numbers)

    def _table(self, X: Any, *, reset: bool) -> pd.DataFrame:
        refuse_other_tables(X, "X")
        if isinstance(X, pd.DataFrame):
            check_columns_once(X, "X")
            if reset or X.columns.tolist() != list(getattr(self, "feature_names_in_", ())):
                validate_data(self, X, reset=reset, skip_check_array=True)  # which says what differs
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


def _means(numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Means of columns, missing values left out; sums of numbers near the end of double precision stay finite."""
    share = np.where(np.isnan(numbers), 0.0, weight[:, None])
    share = share / np.maximum(share.sum(axis=0), np.finfo(float).tiny)
    return np.where(share.any(axis=0), (share * np.nan_to_num(numbers)).sum(axis=0), np.nan)
