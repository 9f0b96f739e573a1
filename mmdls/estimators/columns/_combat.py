"""ComBat: columns measured at several centres brought to one location and scale, learned from the training rows."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from mmdls.cohort import align_rows, cell_kind, modalities, refuse_other_tables
from mmdls.cohort._alignment import check_columns_once
from mmdls.cohort._columns import MISSING_WORDS
from mmdls.estimators.columns._columns import UNSEEN, Cells, number_table, numbers_of, plain_numbers
from mmdls.estimators.columns._empirical_bayes import estimate_effects
from mmdls.estimators.columns._selection import select_columns
from mmdls.registry import estimators

__all__ = ["ComBat"]


@estimators.register("combat")
class ComBat(TransformerMixin, BaseEstimator):
    """Remove what centres add to measurements, and how they stretch them, by empirical Bayes.

    Every column is modelled as mean + covariates + shift of the centre + scale of the centre x residual. The shifts and
    scales of a centre are shrunk towards a prior common to all columns (normal and inverse gamma). Everything is
    estimated from the rows of ``fit``; outcomes are never read.

    The centre of each patient is the metadata ``site`` of ``fit`` and ``transform``, or the column ``site_column`` of X
    where none is given. Scorers of scikit-learn that call ``predict`` route no metadata: then the column must be there.

    Parameters
    ----------
    columns : str, sequence of str or None, default=None
        Columns or blocks to harmonise; others pass unchanged. None means the numbers of all blocks ``<block>_*`` but
        ``clinical_*``, which describe patients and not scanners, and the covariates; of an array, all columns.
    covariates : sequence of str, default=()
        Columns of X whose effects are kept: what differs between centres because their patients differ. Numbers enter
        linearly, categories as indicators. ``transform`` needs them too, so that no outcome can be one.
    reference : object, default=None
        A centre whose values stay as they are and to which the others are brought; None takes the mean of all patients.
    unseen : {"error", "keep"}, default="error"
        What becomes of centres of which nothing can be estimated: those not in ``fit``, and those with a single patient
        there. ``"error"`` refuses them. ``"keep"`` leaves such patients out of the estimation and returns their values
        as they are (shift 0 and scale 1 in units of the pooled deviation), with a warning.
    empirical_bayes : bool, default=True
        Whether the effects of a centre are shrunk, which needs two columns or more.
    site_column : str, default="centre"
        The column of X with the centre where no ``site`` is given. It is not returned.

    Attributes
    ----------
    sites_ : list of str
        Centres that are known.
    harmonised_ : list
        Columns that are harmonised, by name, or by place in an array.
    effects_ : CentreEffects
        ``mean`` and pooled ``deviation`` of columns, ``slopes`` of covariates, ``shift`` and ``scale`` of centres.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    A missing value stays missing; every column is estimated from its own values. A constant column stays as it is.
    Where centre and outcome go together, harmonising also removes what tells the outcome; compare with a model without.

    References
    ----------
    1. Johnson WE, Li C, Rabinovic A. Adjusting batch effects in microarray expression data using empirical Bayes
       methods. Biostatistics, 2007.
    2. Fortin JP et al. Harmonization of cortical thickness measurements across scanners and sites. NeuroImage, 2018.

    Examples
    --------
    >>> X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["pet_mtv", "pet_tlg", "pet_suvmax"])
    >>> centre = np.repeat(["A", "B"], 30)
    >>> X[centre == "B"] += 5
    >>> harmonised = ComBat().fit(X, site=centre).transform(X, site=centre)
    >>> bool(harmonised.groupby(centre).mean().diff().loc["B"].abs().max() < 0.5)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "columns": [str, "array-like", None],
        "covariates": ["array-like", tuple],
        "unseen": [StrOptions({"error", "keep"})],
        "empirical_bayes": ["boolean"],
        "site_column": [str],
    }

    def __init__(
        self,
        *,
        columns: str | Sequence[str] | None = None,
        covariates: Sequence[str] = (),
        reference: Any = None,
        unseen: str = "error",
        empirical_bayes: bool = True,
        site_column: str = "centre",
    ):
        self.columns = columns
        self.covariates = covariates
        self.reference = reference
        self.unseen = unseen
        self.empirical_bayes = empirical_bayes
        self.site_column = site_column

    def fit(self, X: Any, y: Any = None, site: Any = None) -> "ComBat":
        """Estimate the shift and scale of every centre.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_columns)
        y : default=None
            Never read.
        site : array-like of shape (n_patients,), default=None
            Centre of each patient; a Series is joined by patient id. None reads ``site_column``.

        Returns
        -------
        ComBat

        Raises
        ------
        ValueError
            If a patient has no centre, a centre a single patient, covariates are missing or tell the centre, or fewer
            than two columns vary.
        """
        self._validate_params()
        table = self._table(X, reset=True)
        centre = pd.Series(self._centres(table, site))
        self.harmonised_ = self._chosen(table)
        sizes = centre.value_counts()
        if single := sorted(sizes.index[sizes < 2]):
            self._report_unseen(f"the centres {single} have one patient each in fit (n_samples=1), too few")
        self.sites_ = sorted(sizes.index[sizes >= 2])
        reference = None if self.reference is None else _keys(pd.Series([self.reference], dtype=object))[0]
        if not self.sites_ or reference not in [None, *self.sites_]:
            raise ValueError(
                f"reference={self.reference!r} needs centres with two patients or more; these are {self.sites_}, and "
                f"there are {len(table)} patients (n_samples={len(table)})."
            )
        self._categories = {
            name: Cells.of(table[name]).categories()[0] for name in self.covariates if _numbers(table[name]) is None
        }
        site_row = pd.Index(self.sites_).get_indexer(centre)
        inside = site_row >= 0
        design, values = self._design(table)[inside], self._values(table)[inside]
        indicators = site_row[inside][:, None] == np.arange(len(self.sites_))
        if np.linalg.matrix_rank(np.column_stack([indicators, design])) < len(self.sites_) + design.shape[1]:
            raise ValueError(
                f"covariates={list(self.covariates)} do not vary, or follow from one another and the centre; effects "
                "of centre and covariates cannot be told apart. Leave some out."
            )
        alone = len(self.sites_) == 1  # nothing to shift it to
        place = 0 if alone else None if reference is None else self.sites_.index(reference)
        shrink = self.empirical_bayes and not alone
        self.effects_ = estimate_effects(values, site_row[inside], design, place, shrink)
        self._check_effects(shrink, table)
        return self

    def fit_transform(self, X: Any, y: Any = None, site: Any = None) -> Any:
        """Fit to patients and harmonise them; see :meth:`fit` and :meth:`transform`.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_columns)
        y : default=None
            Never read.
        site : array-like of shape (n_patients,), default=None

        Returns
        -------
        pandas.DataFrame or ndarray of shape (n_patients, n_columns)
        """
        return self.fit(X, y, site=site).transform(X, site=site)

    def transform(self, X: Any, site: Any = None) -> Any:
        """Harmonise the values of patients, each with the estimates of its centre.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_columns)
        site : array-like of shape (n_patients,), default=None
            Centre of each patient; None reads ``site_column``.

        Returns
        -------
        pandas.DataFrame or ndarray of shape (n_patients, n_columns)
            X without ``site_column``; a table if X is one.

        Raises
        ------
        ValueError
            If nothing is known of a patient's centre and ``unseen="error"``.
        """
        check_is_fitted(self)
        table = self._table(X, reset=False)
        centre = self._centres(table, site)
        row, effects, values = pd.Index(self.sites_).get_indexer(centre), self.effects_, self._values(table)
        if unseen := sorted({name for name, place in zip(centre, row, strict=True) if place < 0}):
            self._report_unseen(f"the centres {unseen} were not in fit, which knows {self.sites_}")
        shift = np.where(row[:, None] < 0, 0, effects.shift[row])
        scale = np.where(row[:, None] < 0, 1, effects.scale[row])
        varies = effects.deviation > 0
        blank = np.isnan(shift) & varies & ~np.isnan(values)
        if blank.any():
            names = [name for name, some in zip(self.harmonised_, blank.any(axis=0), strict=True) if some]
            self._report_unseen(f"centres had fewer than two values of the columns {names} in fit")
            shift, scale = np.where(np.isnan(shift), 0, shift), np.where(np.isnan(scale), 1, scale)
        expected = effects.mean + self._design(table) @ effects.slopes
        standard = (values - expected) / np.where(varies, effects.deviation, 1)
        adjusted = (standard - shift) / scale * effects.deviation + expected
        as_they_are = ~varies | ((shift == 0) & (scale == 1))
        adjusted = np.where(as_they_are, values, adjusted)
        if not isinstance(X, pd.DataFrame):
            return adjusted
        made = table.copy()
        made[self.harmonised_] = adjusted
        return made.drop(columns=self.site_column, errors="ignore")

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that come out: those of X without ``site_column``.

        Parameters
        ----------
        input_features : default=None
            Ignored.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        return np.asarray([name for name in names if name != self.site_column], dtype=object)

    def _table(self, X: Any, *, reset: bool) -> pd.DataFrame:
        refuse_other_tables(X, "X")
        if isinstance(X, pd.DataFrame):
            check_columns_once(X, "X")
            validate_data(self, X, reset=reset, skip_check_array=True)
            if len(X) == 0:
                raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required by ComBat.")
            # scikit-learn lets a table follow an array; the place of a column then decides.
            return X if hasattr(self, "feature_names_in_") else X.set_axis(range(X.shape[1]), axis=1)
        values = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        return pd.DataFrame(values, columns=getattr(self, "feature_names_in_", None))

    def _centres(self, table: pd.DataFrame, site: Any) -> np.ndarray:
        """The centre of each patient as a text."""
        if site is None:
            if self.site_column not in table.columns:
                raise ValueError(
                    f"ComBat needs the centre of each patient: pass site=, route it with set_fit_request(site=True) "
                    f"and set_transform_request(site=True), or give X a column {self.site_column!r}."
                )
            site = table[self.site_column]
        aligned = align_rows(site, table.index, "site")
        if np.ndim(aligned) != 1:
            raise ValueError(
                f"site must hold one centre a patient, in one dimension of {len(table)}; got the shape "
                f"{np.shape(aligned)}. Of a table, pass the column with the centres."
            )
        centre = pd.Series(np.asarray(aligned, dtype=object), index=table.index, name=self.site_column)
        keys = _keys(centre)
        # A text that stands for nothing, such as "nan" of a column made text, is no centre either.
        if lost := list(table.index[[key is None or key in MISSING_WORDS for key in keys]]):
            raise ValueError(f"the centre of the patients {lost[:5]} ({len(lost)} in all) is missing; give it.")
        return keys

    def _chosen(self, table: pd.DataFrame) -> list[Any]:
        """The columns to harmonise."""
        if absent := [name for name in self.covariates if name not in table.columns]:
            raise ValueError(f"X lacks the covariates {absent}. Columns: {list(table.columns)[:30]}.")
        kept = [*self.covariates, self.site_column]
        if self.columns is not None:
            chosen = [name for name in select_columns(table, self.columns, "ComBat") if name not in kept]
            if words := [name for name in chosen if _numbers(table[name]) is None]:
                raise ValueError(f"ComBat harmonises numbers; the columns {words} hold something else. Leave them out.")
        else:
            blocks = modalities(table) if hasattr(self, "feature_names_in_") else {"": list(table.columns)}
            own = [name for block, names in blocks.items() if block != "clinical" for name in names if name not in kept]
            chosen = [name for name in own if _numbers(table[name]) is not None]
        if not chosen:
            raise ValueError(
                f"X has no column to harmonise; name them by columns=. Columns: {list(table.columns)[:30]}."
            )
        return chosen

    def _values(self, table: pd.DataFrame) -> np.ndarray:
        values = number_table(table[self.harmonised_])
        if infinite := [
            name for name, column in zip(self.harmonised_, values.T, strict=True) if np.isinf(column).any()
        ]:
            raise ValueError(f"Input X contains infinity, in the columns {infinite[:5]}; give NaN where unknown.")
        return values

    def _design(self, table: pd.DataFrame) -> np.ndarray:
        """Covariates (n_patients, n): numbers, and indicators of all categories but the first."""
        parts = [np.empty((len(table), 0))]
        for name in self.covariates:
            if name in self._categories:
                codes = Cells.of(table[name]).places(self._categories[name])
                unknown = codes < 0
                parts.append(codes[:, None] == np.arange(1, len(self._categories[name])))
                if (codes == UNSEEN).any():
                    raise ValueError(
                        f"the covariate {name!r} has categories that were not in fit, for the patients "
                        f"{list(table.index[codes == UNSEEN])[:5]}; known: {self._categories[name]}."
                    )
            else:
                numbers = numbers_of(table[name])
                unknown = ~np.isfinite(numbers)
                parts.append(numbers[:, None])
            if unknown.any():
                raise ValueError(
                    f"the covariate {name!r} is missing for the patients {list(table.index[unknown])[:5]} "
                    f"({unknown.sum()} in all); impute it before, or leave it out of covariates."
                )
        return np.column_stack(parts).astype(float)

    def _check_effects(self, shrink: bool, table: pd.DataFrame) -> None:
        """Refuse what cannot be shrunk or scaled, and say if there is nothing to do."""
        effects, n = self.effects_, len(self.harmonised_)
        varying = effects.deviation > 0
        for name, scale in zip(self.sites_, effects.scale, strict=True):
            known = ~np.isnan(scale) & varying
            if shrink and known.sum() < 2:
                raise ValueError(
                    f"the centre {name!r} has {known.sum()} of {n} feature(s) that vary; empirical Bayes learns its "
                    "prior from two or more columns. Set empirical_bayes=False, or give more columns."
                )
            if still := [column for column, zero in zip(self.harmonised_, scale == 0, strict=True) if zero]:
                raise ValueError(
                    f"the centre {name!r} has the same value for all patients in the columns {still[:5]}, so that its "
                    "scale is 0; leave these columns or this centre out."
                )
        values = self._values(table)
        moves = np.nanmax(values, axis=0, initial=-np.inf) > np.nanmin(values, axis=0, initial=np.inf)
        if left := [column for column, some in zip(self.harmonised_, moves & ~varying, strict=True) if some]:
            within = "any centre" if self.reference is None else f"the reference {self.reference!r}"
            raise ValueError(f"the columns {left[:5]} vary, but not within {within}; leave them out.")
        if len(self.sites_) == 1:
            warnings.warn(
                f"all patients are of the centre {self.sites_[0]!r}; there is nothing to harmonise.", stacklevel=3
            )

    def _report_unseen(self, what: str) -> None:
        if self.unseen == "error":
            raise ValueError(
                f'{what}. Leave them out, join centres, or set unseen="keep" to return their values as they are.'
            )
        warnings.warn(f"{what}; their values stay as they are.", stacklevel=3)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _keys(values: pd.Series) -> np.ndarray:
    """Values as texts, the same for 1, 1.0 and "1"; None where missing."""
    cells = Cells.of(values)
    return np.array([*cells.keys, None], dtype=object)[cells.codes]


def _numbers(column: pd.Series) -> np.ndarray | None:
    """A column of numbers, NaN where missing; None for any other."""
    if cell_kind(column.name) is not None:
        return None
    numbers = plain_numbers(column)
    if numbers is not None or isinstance(column.dtype, pd.CategoricalDtype):
        return numbers
    cells = Cells.of(column)
    return cells.to_numbers() if cells.holds_numbers() else None
