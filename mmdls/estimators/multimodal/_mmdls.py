"""MMDLS, the multimodal multi-task estimator."""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from skorch.history import History
from torch import Tensor

from mmdls.cohort import check_cohort, check_target
from mmdls.estimators.multimodal._multimodal import Multimodal
from mmdls.estimators.multimodal._published import (
    CLINICAL,
    PET,
    RADIOMICS,
    load_checkpoint,
    published_parameters,
    published_tasks,
)
from mmdls.estimators.multimodal._task_answers import cumulative_hazard
from mmdls.estimators.survival._risk_groups import risk_group
from mmdls.modules import Ensemble
from mmdls.registry import estimators as estimator_registry
from mmdls.tasks._reading import warn_of_new_classes
from mmdls.training._build import build_network
from mmdls.training._inference import forward_cohort, ready_to_predict
from mmdls.training._inputs import Inputs
from mmdls.training._net import answering
from mmdls.training._tables import counted_rows, outcome_table, patient_weights

__all__ = ["MMDLS"]


@estimator_registry.register("mmdls")
class MMDLS(TransformerMixin, Multimodal, BaseEstimator):
    """Diagnosis and prognosis from several modalities at once, trained end to end.

    One network, or a few that are averaged, reads every modality that a patient has and answers every task in ``y``:
    classes, ordered classes, right-censored endpoints and more. Modalities and outcomes may be missing for any patient.

    Parameters
    ----------
    modalities : "auto", dict of columns, or list of (name, encoder, columns), default="auto"
        ``"auto"`` makes one modality of every image column and of every block of columns in X, never of identifiers;
        ``fit`` says which columns it does not use. A dict, such as ``{"clinical": ["age", "sex"], "ct": "scan"}``,
        names the columns of each modality, whatever they are called. A list composes
        like ``ColumnTransformer``: the encoder is a :class:`SliceEncoder` (trained end to end), a
        :class:`TabularEncoder`, or any transformer (its output is used as it is; scikit-learn's ``FrozenEstimator``
        keeps a fitted one); columns are names of columns or of blocks, one or several.
    image_encoder, table_encoder : str or estimator, default="slices" and "table"
        The encoders that ``"auto"`` and a dict use: a name in ``mmdls.registry.encoders``, or an estimator. In the list
        an encoder may be a name too.
    fusion : str, class or Part, default="gated"
        A name in ``mmdls.registry.fusions``, a class that keeps the same contract, or ``Part(name, ...)`` with
        parameters. ``"gated"`` and ``"additive"`` add up what modalities say, ``"concat"`` is the published one.
    survival_head : str, class or Part, default="cox"
        Of endpoints; names are those in ``mmdls.registry.survival_heads``, for example ``Part("cox", ties="breslow")``.
    ordinal_head : str, class or Part, default="continuation_ratio"
        Of ordered tasks; names are those in ``mmdls.registry.ordinal_heads``. ``"softmax"`` forgets the order.
    heads : dict of str to str, class or Part, default=None
        Heads of single tasks, or of all tasks of a kind, by name.
    hidden_features : int, default=64
        Width of the shared representation and of the layer in front of the survival heads.
    class_embedding : int, default=16
        Width of the soft embedding of predicted classes that conditions the survival heads; 0 turns it off.
    dropout : float, default=0.5
        Of the layer in front of the survival heads.
    modality_dropout : float, default=0.1
        Chance that a modality is hidden from a patient during training, which prepares for missing ones.
    unimodal_loss_weight : float, default=1.0
        Weight of the loss of auxiliary heads that read one modality each; 0 turns them off. They keep a modality that
        is learned fast, such as the clinical table, from leaving the images nothing to learn.
    auxiliary_horizons : tuple of float, default=()
        Months of auxiliary losses, of the event by the horizon; patients censored before are left out of them.
    n_members : int, default=5
        Networks whose answers are averaged. Each of several holds out another part of the patients, so that all are
        learned from, and all are held out once: their held-out predictions select the best epoch and give
        the baseline hazards. A single one holds out ``validation_fraction`` of them.
        With ``table_encoder__linear=True`` a ridge regression of every task reads the tables too; held-out patients
        weigh it against the networks.
    trainer : Trainer, default=None
        How the network is trained: epochs, learning rate, early stopping, device and more; None means ``Trainer()``.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; ``net_.module_`` is the :class:`mmdls.modules.Ensemble`.
    modalities_ : list of (name, fitted encoder, columns)
    tasks_ : dict of str to mmdls.cohort.Task
    classes_ : dict of str to ndarray
        The classes of each class task.
    combination_ : pandas.DataFrame of shape (n_tasks, 2)
        The weights of networks and of the linear part in the answers to each task.
    unique_times_ : dict of str to ndarray
        The times (months) at which each endpoint's survival function steps.
    training_outcomes_ : dict of str to structured ndarray of shape (n_rows,)
        Events and times of the training rows; the index of prediction accuracy compares with their Kaplan-Meier curve.
    risk_cutpoints_ : dict of str to ndarray of shape (2,)
        Tertiles of the risks of held-out training patients (of all training patients with one member).
    history_ : pandas.DataFrame
        Losses, one row an epoch.
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.
    .. [2] Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty estimation using deep
       ensembles. NeurIPS, 2017.
    .. [3] van de Wiel MA, van Nee MM, Rauschenberger A. Fast cross-validation for multi-penalty high-dimensional ridge
       regression. Journal of Computational and Graphical Statistics, 2021.

    Examples
    --------
    >>> from mmdls import Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> model = MMDLS(trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    >>> list(model.predict(X).columns)
    ['subtype', 'stage', 'dfs', 'os']
    """

    def fit(self, X: pd.DataFrame, y: Any, sample_weight: Any = None) -> "MMDLS":
        """Train on a cohort.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, n_columns)
            Index = patient; see :mod:`mmdls.cohort` for what columns mean.
        y : pandas.DataFrame of shape (n_patients, n_columns)
            The same patients, joined by id; NaN = unknown.
        sample_weight : array or Series of shape (n_patients,), default=None
            Weight of each patient in everything that is learned: losses, baseline hazards, cut-points, averages. A
            Series is joined by id; a patient of weight 0 is not there.

        Returns
        -------
        MMDLS

        Raises
        ------
        TypeError, ValueError
            If the cohort does not pass :func:`mmdls.cohort.check_cohort`.
        FloatingPointError
            If training diverges.
        """
        self._check_parameters()
        table = self._table(X, reset=True)
        by_id = isinstance(X, pd.DataFrame)
        y = outcome_table(y, table.index, by_id=by_id)
        table, y, weight = counted_rows(table, y, patient_weights(sample_weight, table.index, by_id=by_id))
        tasks = check_cohort(table, y)
        self._fit(table, y, tasks, weight)
        self.classes_ = {name: np.asarray(tasks[name].classes) for name in self._class_tasks}
        self.unique_times_ = self._times
        return self

    @classmethod
    def published(cls, checkpoint: str | PathLike | None = None, **params: Any) -> "MMDLS":
        """The published MM-DLS: its architecture and training recipe, or its trained network.

        The columns are those of :func:`mmdls.datasets.make_nsclc_cohort` with 128 radiomics features. Slices are
        resized to 224 x 224 and read as greys in [0, 1]; radiomics, PET and clinical values go in as they are.

        Parameters
        ----------
        checkpoint : path, default=None
            The published ``best_model.pt``. The result is then fitted: it predicts labels and risks at once. A
            checkpoint holds no baseline hazard; :meth:`fit_baselines` estimates one for survival functions.
        **params
            Parameters of this estimator that are to differ.

        Returns
        -------
        MMDLS

        Examples
        --------
        >>> MMDLS.published(trainer__max_epochs=10).trainer.learning_rate
        0.0001
        """
        model = cls(**published_parameters()).set_params(**params)
        if checkpoint is not None:
            model._restore(load_checkpoint(checkpoint))
        return model

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        blocks = {"radiomics": RADIOMICS, "pet": PET, "clinical": CLINICAL}
        self._plain_input = False
        self.tasks_ = published_tasks()
        self.classes_ = {name: np.asarray(self.tasks_[name].classes) for name in self._class_tasks}
        self.modalities_, data = [], {}
        for name, encoder, columns in self.modalities:
            encoder = clone(encoder)
            if name in blocks:
                # The checkpoint's training medians are unknown: a missing value must be refused, not invented.
                columns = blocks[name]
                table = pd.DataFrame(0.0, index=[0], columns=columns)
                data[name] = encoder.set_params(impute=None).fit(table).prepare(table)
            else:
                data[name] = encoder.prepare(pd.DataFrame({column: [None] for column in columns}))
            self.modalities_.append((name, encoder, list(columns)))
        encoders = {name: encoder for name, encoder, _ in self.modalities_}
        network = build_network(encoders, Inputs.of(data), self.tasks_, **self._architecture())
        network.load_state_dict(state)
        self.net_ = answering(Ensemble([ready_to_predict(network)]), History())
        for name, encoder, columns in self.modalities_:
            encoder.set_network(network.encoders[name], columns)
        self.feature_names_in_ = np.asarray([c for _, _, columns in self.modalities_ for c in columns], dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self.history_ = pd.DataFrame()
        self.combination_ = self._weights()
        self.training_outcomes_, self.risk_cutpoints_, self._times, self._average = {}, {}, {}, {}
        self.unique_times_ = self._times

    def fit_baselines(self, X: pd.DataFrame, y: pd.DataFrame, sample_weight: Any = None) -> "MMDLS":
        """Estimate baseline hazards and risk cut-points on other patients; the network stays as it is.

        For a checkpoint that came without them, or to recalibrate a model for another centre.

        Parameters
        ----------
        X, y : pandas.DataFrame
            A cohort that knows the censored outcomes of this model.
        sample_weight : array of shape (n_patients,), default=None

        Returns
        -------
        MMDLS
        """
        check_is_fitted(self, "net_")
        table = self._table(X, reset=False)
        by_id = isinstance(X, pd.DataFrame)
        y = outcome_table(y, table.index, by_id=by_id)
        table, y, weight = counted_rows(table, y, patient_weights(sample_weight, table.index, by_id=by_id))
        names = [name for name, task in self.tasks_.items() if task.is_censored]
        check_cohort(table, y, names)
        inputs = self._inputs(table)
        outputs = forward_cohort(self._network, inputs, self._trainer.compute())
        self._fit_answers(outputs.tasks, ~outputs.unknown, y, names, weight)
        self.unique_times_ = self._times
        return self

    def predict(self, X: Any) -> pd.DataFrame:
        """One column a task: labels of classes, risks of endpoints (higher = earlier event), values of numbers.

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_tasks)
        """
        outputs = self._outputs(X)
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame({name: self._summary(outputs, name) for name in self.tasks_}, index=index)

    def predict_proba(self, X: Any, task: str) -> np.ndarray:
        """Probabilities of a class task, (n_patients, n_classes), columns in the order of ``classes_[task]``."""
        check_is_fitted(self, "net_")
        self._check_offered(task, self._class_tasks)
        return self._predictions(self._outputs(X), task).to_numpy(copy=True)

    def predict_survival_function(self, X: Any, task: str, return_array: bool = False, times: Any = None) -> np.ndarray:
        """Survival functions of an endpoint.

        Parameters
        ----------
        X : pandas.DataFrame
        task : str
            The endpoint.
        return_array : bool, default=False
            Give probabilities (n_patients, n_times) at ``unique_times_[task]`` instead of step functions.
        times : sequence of float, default=None
            Months: only the probabilities there are computed and given, NaN beyond the training follow-up.

        Returns
        -------
        ndarray of scikit-survival StepFunction, shape (n_patients,), or of float
        """
        check_is_fitted(self, "net_")
        return self._step_functions(X, task, return_array, asked=times)

    def predict_cumulative_hazard_function(self, X: Any, task: str, return_array: bool = False) -> np.ndarray:
        """Cumulative hazard functions of an endpoint; see :meth:`predict_survival_function`."""
        check_is_fitted(self, "net_")
        return self._step_functions(X, task, return_array, cumulative_hazard)

    def predict_cumulative_incidence(
        self, X: Any, task: str, times: Sequence[float] | None = None
    ) -> dict[int, pd.DataFrame]:
        """Cumulative incidences of every cause of a task with competing risks.

        Parameters
        ----------
        X : pandas.DataFrame
        task : str
        times : sequence of float, default=None
            Months; None means the times of the training events.

        Returns
        -------
        dict of int to pandas.DataFrame of shape (n_patients, n_times)
            By cause (1, 2, ...), columns = months, ascending; NaN beyond the training follow-up. At every time the
            incidences of all causes and the probability of no event sum to 1.
            :func:`mmdls.plotting.cumulative_incidence` takes it as ``predicted``.
        """
        check_is_fitted(self, "net_")
        offered = [name for name, each in self.tasks_.items() if hasattr(each, "cumulative_incidence")]
        self._check_offered(task, offered)
        asked: Any = self.tasks_[task]
        learned = self.training_outcomes_[task]
        grid: Any = np.unique(learned["time"][asked.is_event(learned)]) if times is None else times
        return asked.cumulative_incidence(self.predict_tasks(X, grid)[task])

    def predict_risk_group(self, X: Any, task: str) -> np.ndarray:
        """Risk group of an endpoint, 0 (low) to 2 (high), by the tertiles of the training risks, (n_patients,)."""
        check_is_fitted(self, "net_")
        self._check_offered(task, self._endpoints)
        return risk_group(self._summary(self._outputs(X), task), self.risk_cutpoints_[task])

    def transform(self, X: Any) -> np.ndarray:
        """Patient embeddings: the shared representations of all members, (n_patients, n_members * hidden_features)."""
        return self._outputs(X).shared.numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the embedding's columns."""
        check_is_fitted(self, "net_")
        width = self._network.first.fusion.out_features * len(self._network.members)
        return np.asarray([f"mmdls_{i:03d}" for i in range(width)], dtype=object)

    def attention_weights(self, X: pd.DataFrame) -> pd.DataFrame:
        """By what fusion and poolings weigh modalities, slices and vectors of each patient: weights, not importances.

        They say how much was said, not how much it helped; that is asked of :mod:`mmdls.explain`.

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_columns)
            Columns ``<modality>``: weights that sum to 1 over a patient's modalities, if the fusion weighs them. Of a
            sum they are the summands' shares of the lengths. Columns ``<modality>_slices``, ``<modality>_vectors``:
            arrays of weights that sum to 1 over a patient's slices or vectors, if the pooling weighs them.

        Raises
        ------
        ValueError
            If nothing in the model weighs its inputs.
        """
        check_is_fitted(self, "net_")
        inputs = self._inputs(self._table(X, reset=False))
        outputs = forward_cohort(self._network, inputs, self._trainer.compute(), attention=True)
        table = pd.DataFrame(index=X.index)
        if outputs.attention.modalities is not None:
            table[inputs.names] = outputs.attention.modalities.numpy()
        for name, weights in outputs.attention.items.items():
            data: Any = inputs.data[name]
            parts = np.split(weights.numpy(), data.offsets[1:-1])
            table[f"{name}_{data.items}"] = pd.Series(parts, index=X.index)
        if table.empty:
            raise ValueError("neither the fusion nor a pooling of this model weighs its inputs; there are no weights.")
        return table

    def score(self, X: Any, y: pd.DataFrame) -> float:
        """Mean over tasks of the ROC AUC (one against the rest), Harrell's C and other scores; higher is better.

        Tasks of which ``y`` knows too little are left out, those of which it has no columns with a warning; NaN if it
        knows too little of all. Patients of a class that no training patient had are left out of that task, with a
        warning: there is no probability to score.

        Raises
        ------
        KeyError
            If ``y`` has none of the tasks.
        """
        outputs = self._outputs(X)
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(outputs.unknown))
        y = outcome_table(y, index, by_id=isinstance(X, pd.DataFrame))
        offered = check_target(y)
        missing = [name for name in self.tasks_ if name not in offered]
        if len(missing) == len(self.tasks_):
            raise KeyError(f"y has none of the tasks of this model, {missing}; its columns are {list(y.columns)}.")
        if missing:
            warnings.warn(f"y has no columns of {missing}; the score is that of the other tasks.", stacklevel=2)
        scores: list[float] = []
        for task in (task for name, task in self.tasks_.items() if name in offered):
            outcome = task.outcome(y)
            if task.has_classes:
                warn_of_new_classes(task, y, outcome, "score")
            scores.append(self._task_score(outputs, task.name, outcome))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
