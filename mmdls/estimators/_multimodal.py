"""MMDLS, the multimodal multi-task estimator, and its two single-task forms."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_feature_names, _check_sample_weight, check_is_fitted, validate_data
from sksurv.functions import StepFunction
from torch import Tensor

from mmdls.cohort import Task, check_cohort, check_features, modalities, survival_target
from mmdls.estimators._inputs import Inputs, column_list, outcome_table, rows_with_values
from mmdls.estimators._network import build_network, fit_network
from mmdls.estimators._published import (
    CLINICAL,
    PET,
    RADIOMICS,
    load_checkpoint,
    published_parameters,
    published_tasks,
)
from mmdls.estimators._slices import SliceEncoder
from mmdls.estimators._tabular import TabularEncoder
from mmdls.estimators._training import CohortNet, Compute, forward_cohort, history_table, ready_to_predict
from mmdls.metrics import auc_score, concordance_index
from mmdls.modules import MultimodalNet
from mmdls.registry import estimators as estimator_registry

__all__ = ["MMDLS", "MultimodalClassifier", "MultimodalSurvival"]


class _Multimodal(_BaseComposition):
    """What the three estimators share: parameters, fitting, and the way from a table to the network's outputs."""

    # Columns are found by name; only scikit-learn's own contract for classifiers asks for their order too.
    _columns_in_order = False

    def __init__(
        self,
        modalities: str | Sequence[tuple[str, Any, Any]] = "auto",
        *,
        image_encoder: Any = None,
        table_encoder: Any = None,
        fusion: Any = "gated",
        fusion_params: Mapping[str, Any] | None = None,
        survival: Any = "cox",
        survival_params: Mapping[str, Any] | None = None,
        ordinal: str = "continuation_ratio",
        hidden_features: int = 64,
        class_embedding: int = 16,
        dropout: float = 0.1,
        modality_dropout: float = 0.1,
        modality_supervision: float = 1.0,
        horizons: Sequence[float] = (),
        task_weights: Mapping[str, float] | None = None,
        optimizer: str = "adamw",
        max_epochs: int = 150,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        batch_size: int = 512,
        micro_batch_size: int | str = "auto",
        validation_fraction: float = 0.15,
        patience: int | None = 25,
        schedule: str | None = "cosine",
        gradient_clip: float | None = 5.0,
        precision: str = "float32",
        n_jobs: int | None = None,
        device: str = "cpu",
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.modalities = modalities
        self.image_encoder = image_encoder
        self.table_encoder = table_encoder
        self.fusion = fusion
        self.fusion_params = fusion_params
        self.survival = survival
        self.survival_params = survival_params
        self.ordinal = ordinal
        self.hidden_features = hidden_features
        self.class_embedding = class_embedding
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.modality_supervision = modality_supervision
        self.horizons = horizons
        self.task_weights = task_weights
        self.optimizer = optimizer
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.precision = precision
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    # -- composition, as in ColumnTransformer ---------------------------------------------------------------------

    @property
    def _encoders(self) -> list[tuple[str, Any]]:
        try:
            return [(name, encoder) for name, encoder, _ in self.modalities]
        except (TypeError, ValueError):  # "auto", or what fit will refuse
            return []

    @_encoders.setter
    def _encoders(self, encoders: list[tuple[str, Any]]) -> None:
        self.modalities = [
            (name, encoder, columns) for (name, encoder), (_, _, columns) in zip(encoders, self.modalities, strict=True)
        ]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of this estimator and, if deep, of its encoders as ``<modality>__<parameter>``."""
        return self._get_params("_encoders", deep=deep)

    def set_params(self, **params: Any) -> "_Multimodal":
        """Set parameters, those of an encoder as ``<modality>__<parameter>``."""
        self._set_params("_encoders", **params)
        return self

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "fusion": optuna.distributions.CategoricalDistribution(["gated", "concat"]),
            "hidden_features": optuna.distributions.CategoricalDistribution([32, 64, 128]),
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
            "learning_rate": optuna.distributions.FloatDistribution(5e-4, 1e-2, log=True),
            "weight_decay": optuna.distributions.FloatDistribution(1e-4, 0.3, log=True),
        }

    # -- fitting --------------------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: pd.DataFrame, tasks: dict[str, Task], sample_weight: Any) -> None:
        table = self._table(X, reset=True)
        self.modalities_ = self._resolve_modalities(table)
        self.tasks_ = tasks
        used = {column for _, _, columns in self.modalities_ for column in columns}
        if isinstance(X, pd.DataFrame):
            self.feature_names_in_ = np.asarray([c for c in table.columns if c in used], dtype=object)
            self.n_features_in_ = len(self.feature_names_in_)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, table, ensure_non_negative=True)
        inputs = self._inputs(table, y, fitting=True)
        training = {
            name: getattr(self, name)
            for name in (
                "optimizer",
                "max_epochs",
                "learning_rate",
                "weight_decay",
                "batch_size",
                "patience",
                "schedule",
                "gradient_clip",
                "task_weights",
                "verbose",
            )
        }
        self.net_ = fit_network(
            {name: encoder for name, encoder, _ in self.modalities_},
            inputs,
            y,
            tasks,
            architecture=self._architecture(),
            training=training,
            compute=self._compute(),
            validation_fraction=self.validation_fraction,
            seed=check_random_state(self.random_state).randint(2**31 - 1),
            sample_weight=sample_weight,
        )
        self.history_ = history_table(self.net_)
        for name, encoder, columns in self.modalities_:
            if name in inputs.stores:
                encoder.adopt(self._network.encoders[name], columns)
        self._fit_answers(forward_cohort(self._network, inputs, self._compute()), y, inputs.present.any(dim=1))

    def _architecture(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in (
                "fusion",
                "fusion_params",
                "survival",
                "survival_params",
                "ordinal",
                "hidden_features",
                "class_embedding",
                "dropout",
                "modality_dropout",
                "modality_supervision",
                "horizons",
            )
        }

    def _fit_answers(self, outputs: dict[str, Tensor], y: pd.DataFrame, present: Tensor) -> None:
        """Baselines, time grids, risk cut-points, outcomes and average answers of the training rows."""
        self.outcomes_, self.risk_cutpoints_, self._times = {}, {}, {}
        # What is said of a patient of whom nothing is known; no training row teaches the network that.
        self._average = {name: outputs[name][present].mean(dim=0) for name in self._endpoints}
        for name, head in self._network.class_heads.items():
            self._average[name] = head.probabilities(outputs[name][present]).mean(dim=0)
        for name in self._endpoints:
            outcome = survival_target(y, name)
            known = torch.as_tensor(~np.isnan(outcome["time"]))
            event = torch.as_tensor(outcome["event"].copy())
            time = torch.as_tensor(outcome["time"].copy())
            head, rows = self._network.survival_heads[name].cpu(), known & present
            head.fit_baseline(outputs[name][rows], event[rows], time[rows])
            self._network.to(self._compute().torch_device)
            self._times[name] = head.times.cpu().numpy()
            self.outcomes_[name] = outcome[known.numpy()]
            risk = head.cpu().risk(outputs[name][rows]).numpy()
            self.risk_cutpoints_[name] = np.quantile(risk, [1 / 3, 2 / 3])

    def _resolve_modalities(self, X: pd.DataFrame) -> list[tuple[str, Any, list[str]]]:
        if not self._encoders:
            if self.modalities != "auto":
                raise ValueError(
                    f"modalities must be 'auto' or a list of (name, encoder, columns); got {self.modalities!r}."
                )
            image = SliceEncoder() if self.image_encoder is None else self.image_encoder
            plain = TabularEncoder() if self.table_encoder is None else self.table_encoder
            found = modalities(X) if not self._plain_input else {"features": list(X.columns)}
            if not found:
                raise ValueError(
                    "X has no feature columns: a feature is called '<block>_<name>', such as 'clinical_age', an image "
                    f"'<name>_image'. Columns: {list(X.columns)}."
                )
            return [
                (name, clone(image if columns[0].endswith("_image") else plain), columns)
                for name, columns in found.items()
            ]
        names = [name for name, _ in self._encoders]
        self._validate_names(names)
        return [(name, clone(encoder), column_list(X, columns, name)) for name, encoder, columns in self.modalities]

    # -- from a table to the network ------------------------------------------------------------------------------

    def _table(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """The gate for X: a table of patients, or a plain numeric array as one block."""
        X = _plain(X)
        if isinstance(X, pd.DataFrame) and (reset or not self._plain_input):
            check_features(X)
            if reset:
                self._plain_input = False
            else:
                self._check_columns(X)
            return X
        X = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        if reset:
            self._plain_input = True
        elif not self._plain_input:
            raise TypeError("the model was fitted on a table of patients; X must be a pandas DataFrame too.")
        return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])

    def _check_columns(self, X: pd.DataFrame) -> None:
        """Every column used in fit must be there; a feature column that fit did not see is refused."""
        missing = [c for c in self.feature_names_in_ if c not in X.columns]
        known = set(self.feature_names_in_)
        if not self._encoders:
            features = {c for columns in modalities(X).values() for c in columns}
            shown = X[[c for c in X.columns if c in known or c in features]]
        else:
            shown = X[[c for c in X.columns if c in known]]
        if missing and len(shown.columns):
            of = {c: name for name, _, columns in self.modalities_ for c in columns}
            gone = sorted({of[c] for c in missing})
            raise ValueError(
                "The feature names should match those that were passed during fit.\n"
                "Feature names seen at fit time, yet now missing:\n"
                + "".join(f"- {c}\n" for c in missing)
                + f"They belong to the modalities {gone}; for patients without them, fill the columns with NaN or None."
            )
        if not self._columns_in_order:
            shown = shown[
                sorted(shown.columns, key=lambda c: list(self.feature_names_in_).index(c) if c in known else -1)
            ]
        _check_feature_names(self, shown, reset=False)

    def _inputs(self, X: pd.DataFrame, y: pd.DataFrame | None = None, *, fitting: bool = False) -> Inputs:
        inputs = Inputs([name for name, _, _ in self.modalities_])
        present = []
        for name, encoder, columns in self.modalities_:
            part = X[columns]
            if isinstance(encoder, SliceEncoder):
                inputs.stores[name] = encoder.open_slices(part, self.n_jobs, self.verbose)
                present.append(inputs.stores[name].present)
            else:
                if fitting:
                    encoder.fit(part, y)
                table = np.asarray(encoder.transform(part), dtype=np.float32)
                here = rows_with_values(part)
                bad = here & ~np.isfinite(table).all(axis=1)
                if bad.any():
                    raise ValueError(
                        f"modality {name!r} has missing or infinite values in rows {list(X.index[bad][:5])} and its "
                        f"encoder {encoder!r} leaves them; use one that imputes, or complete the columns {columns[:5]}."
                    )
                inputs.tables[name] = torch.as_tensor(np.where(here[:, None], table, 0.0))
                present.append(here)
        inputs.present = torch.as_tensor(np.stack(present, axis=1))
        alone = ~inputs.present.any(dim=1).numpy()
        if alone.all():
            raise ValueError(
                f"no patient in X has any of the modalities {inputs.names}: every cell of theirs is missing."
            )
        if alone.any() and not fitting:
            warnings.warn(
                f"{alone.sum()} of {len(X)} patients have none of the modalities {inputs.names}; their predictions are "
                f"the average of the training patients. First: {list(X.index[alone][:3])}.",
                stacklevel=4,
            )
        return inputs

    def _outputs(self, X: Any) -> dict[str, Tensor]:
        check_is_fitted(self, "net_")
        inputs = self._inputs(self._table(X, reset=False))
        outputs = forward_cohort(self._network, inputs, self._compute())
        outputs["@unknown"] = ~inputs.present.any(dim=1)
        for name in self._average.keys() & set(self._endpoints):
            outputs[name][outputs["@unknown"]] = self._average[name]
        return outputs

    def _compute(self) -> Compute:
        return Compute(self.device, self.precision, self.micro_batch_size)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags

    @property
    def _network(self) -> MultimodalNet:
        return self.net_.module_

    @property
    def _endpoints(self) -> list[str]:
        return [task.name for task in self.tasks_.values() if task.kind == "survival"]

    def _task(self, name: str, *kinds: str) -> Task:
        offered = [task.name for task in self.tasks_.values() if task.kind in kinds]
        if name not in offered:
            raise KeyError(f"{name!r} is none of the tasks this answers for: {offered}.")
        return self.tasks_[name]

    # -- answers by task ------------------------------------------------------------------------------------------

    def _probabilities(self, outputs: Mapping[str, Tensor], task: str) -> np.ndarray:
        probabilities = self._network.class_heads[task].probabilities(outputs[task])
        if task in self._average:
            probabilities[outputs["@unknown"]] = self._average[task]
        return probabilities.numpy()

    def _risk(self, outputs: Mapping[str, Tensor], task: str) -> np.ndarray:
        return self._network.survival_heads[task].cpu().risk(outputs[task]).numpy()

    def _survival(self, outputs: Mapping[str, Tensor], task: str, times: np.ndarray) -> np.ndarray:
        head = self._network.survival_heads[task].cpu()
        return head.survival_function(outputs[task], torch.as_tensor(times)).numpy()

    def _step_functions(
        self, X: Any, task: str, return_array: bool, transform: Callable[[np.ndarray], np.ndarray] = lambda s: s
    ) -> np.ndarray:
        self._task(task, "survival")
        if task not in self._times:
            raise RuntimeError(
                f"the baseline hazard of {task!r} is unknown, since this model came from a checkpoint; "
                "call fit_baselines(X, y) with patients of known outcome first."
            )
        times = self._times[task]
        values = transform(self._survival(self._outputs(X), task, times))
        if return_array:
            return values
        start = float(transform(np.ones(1))[0])
        grid, values = np.r_[0.0, times], np.c_[np.full(len(values), start), values]
        if times[0] == 0:
            grid, values = grid[1:], values[:, 1:]
        functions = np.empty(len(values), dtype=object)
        functions[:] = [StepFunction(grid, row, domain=(0, None)) for row in values]
        return functions


@estimator_registry.register("mmdls")
class MMDLS(TransformerMixin, _Multimodal, BaseEstimator):
    """Diagnosis and prognosis from several modalities at once, trained end to end.

    One network reads every modality that a patient has and answers every task in ``y``: classes, ordered classes,
    right-censored endpoints. Modalities and outcomes may be missing for any patient.

    Parameters
    ----------
    modalities : "auto" or list of (name, encoder, columns), default="auto"
        ``"auto"`` makes one modality of every image column and of every block of columns in X. A list composes
        like ``ColumnTransformer``: the encoder is a :class:`SliceEncoder` (trained end to end), a
        :class:`TabularEncoder`, or any transformer (its output is used as it is; scikit-learn's ``FrozenEstimator``
        keeps a fitted one); columns are names, or the name of a block.
    image_encoder, table_encoder : estimator, default=None
        The encoders that ``"auto"`` uses; None means ``SliceEncoder()`` and ``TabularEncoder()``.
    fusion : str or class, default="gated"
        A name in ``mmdls.registry.fusions``, or a class that keeps the same contract.
    fusion_params : dict, default=None
        Arguments of the fusion.
    survival : str or class, default="cox"
        A name in ``mmdls.registry.survival_heads``, or a class that keeps the same contract.
    survival_params : dict, default=None
        Arguments of the survival heads, for example ``{"ties": "breslow"}``.
    ordinal : {"continuation_ratio", "softmax"}, default="continuation_ratio"
        The head of ordered tasks; ``"softmax"`` forgets the order.
    hidden_features : int, default=64
        Width of the shared representation and of the layer in front of the survival heads.
    class_embedding : int, default=16
        Width of the soft embedding of predicted classes that conditions the survival heads; 0 turns it off.
    dropout : float, default=0.1
    modality_dropout : float, default=0.1
        Chance that a modality is hidden from a patient during training, which prepares for missing ones.
    modality_supervision : float, default=1.0
        Weight of the loss of auxiliary heads that read one modality each; 0 turns them off. They keep a modality that
        is learned fast, such as the clinical table, from leaving the images nothing to learn.
    horizons : tuple of float, default=()
        Months of auxiliary event-by-then losses; patients censored before are left out of them.
    task_weights : dict of str to float, default=None
        Weight of each task's loss; 1 where none is given.
    optimizer : {"adamw", "adam"}, default="adamw"
    max_epochs : int, default=150
    learning_rate : float, default=3e-3
    weight_decay : float, default=0.01
    batch_size : int, default=512
        Patients of a step, which are the risk set of a Cox loss.
    micro_batch_size : int or "auto", default="auto"
        Slices encoded at a time; changes memory and speed, not the result.
    validation_fraction : float, default=0.15
        Patients held out, stratified by outcome, to stop early; 0 trains for ``max_epochs``.
    patience : int, default=25
        Epochs without a better validation loss before training stops; the best weights are restored.
    schedule : {"cosine", None}, default="cosine"
        Of the learning rate.
    gradient_clip : float, default=5.0
        Largest norm of the gradient; None does not clip.
    precision : {"float32", "bf16"}, default="float32"
    n_jobs : int, default=None
        Workers that decode images.
    device : {"cpu", "cuda", "auto"}, default="cpu"
    verbose : int, default=0
        1 shows progress bars.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; ``net_.module_`` is the :class:`mmdls.modules.MultimodalNet`.
    modalities_ : list of (name, fitted encoder, columns)
    tasks_ : dict of str to mmdls.cohort.Task
    classes_ : dict of str to ndarray
        The classes of each class task.
    unique_times_ : dict of str to ndarray
        The times (months) at which each endpoint's survival function steps.
    outcomes_ : dict of str to structured ndarray
        Events and times of the training rows; metrics take the censoring distribution from here.
    risk_cutpoints_ : dict of str to ndarray of shape (2,)
        Tertiles of the training risks.
    history_ : pandas.DataFrame
        Losses, one row an epoch.
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> model = MMDLS(max_epochs=2, random_state=0).fit(X, y)
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
            The same patients; NaN = unknown.
        sample_weight : array of shape (n_patients,), default=None
            Weight of each patient in every loss.

        Returns
        -------
        MMDLS

        Raises
        ------
        TypeError, ValueError
            If the cohort does not pass the gate of :func:`mmdls.cohort.check_cohort`.
        FloatingPointError
            If training diverges.
        """
        X = _plain(X)
        if not isinstance(X, pd.DataFrame):
            X = validate_data(self, X, dtype="numeric", ensure_all_finite="allow-nan")
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(X))
        y = outcome_table(y, index)
        tasks = check_cohort(X, y) if isinstance(X, pd.DataFrame) else check_cohort(pd.DataFrame(index=index), y)
        self._fit(X, y, tasks, sample_weight)
        self.classes_ = {task.name: np.asarray(task.classes) for task in tasks.values() if task.classes}
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
        >>> MMDLS.published(max_epochs=10).learning_rate
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
        self.classes_ = {task.name: np.asarray(task.classes) for task in self.tasks_.values() if task.classes}
        self.modalities_, inputs = [], Inputs([name for name, _ in self._encoders])
        for name, encoder, columns in self.modalities:
            encoder = clone(encoder)
            if name in blocks:
                # The checkpoint's training medians are unknown: a missing value must be refused, not invented.
                columns = blocks[name]
                encoder.set_params(impute=None).fit(pd.DataFrame(0.0, index=[0], columns=columns))
                inputs.tables[name] = torch.zeros(1, len(columns))
            else:
                inputs.stores[name] = None
            self.modalities_.append((name, encoder, list(columns)))
        network = build_network(
            dict((n, e) for n, e, _ in self.modalities_), inputs, self.tasks_, **self._architecture()
        )
        network.load_state_dict(state)
        self.net_ = CohortNet(ready_to_predict(network), criterion=torch.nn.Identity).initialize()
        for name, encoder, columns in self.modalities_:
            if name in inputs.stores:
                encoder.adopt(network.encoders[name], columns)
        self.feature_names_in_ = np.asarray([c for _, _, columns in self.modalities_ for c in columns], dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self.history_ = pd.DataFrame()
        self.outcomes_, self.risk_cutpoints_, self._times, self._average = {}, {}, {}, {}
        self.unique_times_ = self._times

    def fit_baselines(self, X: pd.DataFrame, y: pd.DataFrame) -> "MMDLS":
        """Estimate baseline hazards and risk cut-points on other patients; the network stays as it is.

        For a checkpoint that came without them, or to recalibrate a model for another centre.

        Parameters
        ----------
        X, y : pandas.DataFrame
            A cohort that knows the endpoints of this model.

        Returns
        -------
        MMDLS
        """
        check_is_fitted(self, "net_")
        check_cohort(X, y, self._endpoints)
        inputs = self._inputs(self._table(X, reset=False))
        self._fit_answers(forward_cohort(self._network, inputs, self._compute()), y, inputs.present.any(dim=1))
        self.unique_times_ = self._times
        return self

    def predict(self, X: Any) -> pd.DataFrame:
        """Labels of the class tasks and risks of the endpoints (higher = earlier event).

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_tasks)
        """
        outputs = self._outputs(X)
        columns: dict[str, Any] = {}
        for task in self.tasks_.values():
            if task.kind == "survival":
                columns[task.name] = self._risk(outputs, task.name)
            else:
                columns[task.name] = pd.Categorical.from_codes(
                    self._probabilities(outputs, task.name).argmax(axis=1),
                    categories=list(task.classes),
                    ordered=task.kind == "ordinal",
                )
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(columns, index=index)

    def predict_proba(self, X: Any, task: str) -> np.ndarray:
        """Probabilities of a class task, (n_patients, n_classes), columns in the order of ``classes_[task]``."""
        check_is_fitted(self, "net_")
        self._task(task, "classification", "ordinal")
        return self._probabilities(self._outputs(X), task)

    def predict_survival_function(self, X: Any, task: str, return_array: bool = False) -> np.ndarray:
        """Survival functions of an endpoint.

        Parameters
        ----------
        X : pandas.DataFrame
        task : str
            The endpoint.
        return_array : bool, default=False
            Give probabilities (n_patients, n_times) at ``unique_times_[task]`` instead of step functions.

        Returns
        -------
        ndarray of scikit-survival StepFunction, shape (n_patients,), or of float
        """
        check_is_fitted(self, "net_")
        return self._step_functions(X, task, return_array)

    def predict_cumulative_hazard_function(self, X: Any, task: str, return_array: bool = False) -> np.ndarray:
        """Cumulative hazard functions of an endpoint; see :meth:`predict_survival_function`."""
        check_is_fitted(self, "net_")
        return self._step_functions(X, task, return_array, _cumulative_hazard)

    def predict_risk_group(self, X: Any, task: str) -> np.ndarray:
        """Risk group of an endpoint, 0 (low) to 2 (high), by the tertiles of the training risks, (n_patients,)."""
        check_is_fitted(self, "net_")
        self._task(task, "survival")
        return np.searchsorted(self.risk_cutpoints_[task], self._risk(self._outputs(X), task), side="right")

    def transform(self, X: Any) -> np.ndarray:
        """Patient embeddings: the shared representation, (n_patients, hidden_features)."""
        return self._outputs(X)["@shared"].numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the embedding's columns."""
        check_is_fitted(self, "net_")
        width = self._network.fusion.out_features
        return np.asarray([f"mmdls_{i:03d}" for i in range(width)], dtype=object)

    def attention(self, X: pd.DataFrame) -> pd.DataFrame:
        """How much each modality counted for each patient, and each slice where the pooling weighs slices.

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_columns)
            Columns ``<modality>``: weights that sum to 1 over a patient's modalities, if the fusion weighs them;
            columns ``<modality>_slices``: arrays of weights that sum to 1 over a patient's slices, if its
            pooling weighs them.
        """
        check_is_fitted(self, "net_")
        inputs = self._inputs(self._table(X, reset=False))
        outputs = forward_cohort(self._network, inputs, self._compute())
        table = pd.DataFrame(index=X.index)
        if "@modalities" in outputs:
            table[inputs.names] = outputs["@modalities"].numpy()
        for name, store in inputs.stores.items():
            if f"@slices:{name}" in outputs:
                weights = outputs[f"@slices:{name}"].numpy()
                table[f"{name}_slices"] = pd.Series(np.split(weights, store.offsets[1:-1]), index=X.index)
        if table.empty:
            raise ValueError("neither the fusion nor a pooling of this model weighs its inputs; there is no attention.")
        return table

    def score(self, X: Any, y: pd.DataFrame) -> float:
        """Mean over tasks of the ROC AUC (one against the rest) and of Harrell's C; higher is better.

        Tasks of which ``y`` knows too little are left out; NaN if it knows too little of all.
        """
        outputs = self._outputs(X)
        y = outcome_table(y, X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(y)))
        scores = []
        for task in self.tasks_.values():
            if task.kind == "survival":
                outcome = survival_target(y, task.name)
                known = ~np.isnan(outcome["time"])
                risk = self._risk(outputs, task.name)
                scores.append(concordance_index(outcome["event"][known], outcome["time"][known], risk[known]))
            else:
                known = y[task.name].notna().to_numpy()
                codes = pd.Categorical(y[task.name], categories=list(task.classes)).codes
                scores.append(auc_score(codes[known], self._probabilities(outputs, task.name)[known]))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


@estimator_registry.register("multimodal_classifier")
class MultimodalClassifier(ClassifierMixin, _Multimodal, BaseEstimator):
    """One label from several modalities: :class:`MMDLS` as a scikit-learn classifier.

    X is a table of patients or a plain numeric array. The parameters are those of :class:`MMDLS`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    net_ : skorch.NeuralNet
    modalities_ : list of (name, fitted encoder, columns)
    history_ : pandas.DataFrame
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> MultimodalClassifier(max_epochs=30, random_state=0).fit(X, y).score(X, y) > 0.8
    True
    """

    _columns_in_order = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MultimodalClassifier":
        """Train on labels.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), default=None

        Returns
        -------
        MultimodalClassifier
        """
        if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
            y = y.iloc[:, 0]
        X = _plain(X)
        if isinstance(X, pd.DataFrame):
            _, labels = validate_data(self, X, y, skip_check_array=True), np.asarray(y)
        else:
            X, labels = validate_data(self, X, y, dtype="numeric", ensure_all_finite="allow-nan")
        check_classification_targets(labels)
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(X))
        if len(labels) != len(index):
            raise ValueError(f"X has {len(index)} patients and y has {len(labels)}; both need one row a patient.")
        table = pd.DataFrame({"label": labels}, index=index)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}; a classifier needs at least 2 classes.")
        task = Task("label", "classification", ("label",), tuple(self.classes_))
        self._fit(X, table, {"label": task}, sample_weight)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n_samples, n_classes), columns in the order of ``classes_``."""
        return self._probabilities(self._outputs(X), "label")

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample, (n_samples,)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return self.classes_[chosen]


@estimator_registry.register("multimodal_survival")
class MultimodalSurvival(_Multimodal, BaseEstimator):
    """One right-censored endpoint from several modalities, with the manners of scikit-survival.

    X is a table of patients or a plain numeric array; y is a table with the endpoint's time and event, or
    scikit-survival's structured array. The parameters are those of :class:`MMDLS` without those of class tasks, and:

    Parameters
    ----------
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.

    Attributes
    ----------
    unique_times_ : ndarray of shape (n_times,)
        The times (months) at which survival functions step.
    event_times_ : ndarray
        The times at which an event was seen in training.
    outcomes_ : dict of str to structured ndarray
    risk_cutpoints_ : dict of str to ndarray of shape (2,)
    net_ : skorch.NeuralNet
    modalities_ : list of (name, fitted encoder, columns)
    history_ : pandas.DataFrame
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> model = MultimodalSurvival(endpoint="os", max_epochs=2, random_state=0).fit(X, y)
    >>> model.predict(X).shape
    (60,)
    """

    def __init__(
        self,
        modalities: str | Sequence[tuple[str, Any, Any]] = "auto",
        *,
        endpoint: str | None = None,
        image_encoder: Any = None,
        table_encoder: Any = None,
        fusion: Any = "gated",
        fusion_params: Mapping[str, Any] | None = None,
        survival: Any = "cox",
        survival_params: Mapping[str, Any] | None = None,
        hidden_features: int = 64,
        dropout: float = 0.1,
        modality_dropout: float = 0.1,
        modality_supervision: float = 1.0,
        horizons: Sequence[float] = (),
        optimizer: str = "adamw",
        max_epochs: int = 150,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        batch_size: int = 512,
        micro_batch_size: int | str = "auto",
        validation_fraction: float = 0.15,
        patience: int | None = 25,
        schedule: str | None = "cosine",
        gradient_clip: float | None = 5.0,
        precision: str = "float32",
        n_jobs: int | None = None,
        device: str = "cpu",
        verbose: int = 0,
        random_state: Any = None,
    ):
        super().__init__(
            modalities,
            image_encoder=image_encoder,
            table_encoder=table_encoder,
            fusion=fusion,
            fusion_params=fusion_params,
            survival=survival,
            survival_params=survival_params,
            hidden_features=hidden_features,
            dropout=dropout,
            modality_dropout=modality_dropout,
            modality_supervision=modality_supervision,
            horizons=horizons,
            optimizer=optimizer,
            max_epochs=max_epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            validation_fraction=validation_fraction,
            patience=patience,
            schedule=schedule,
            gradient_clip=gradient_clip,
            precision=precision,
            n_jobs=n_jobs,
            device=device,
            verbose=verbose,
            random_state=random_state,
        )
        self.endpoint = endpoint

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MultimodalSurvival":
        """Train on one endpoint.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
        y : pandas.DataFrame or structured array of shape (n_patients,)
        sample_weight : array of shape (n_patients,), default=None

        Returns
        -------
        MultimodalSurvival
        """
        X = _plain(X)
        if isinstance(X, pd.DataFrame):
            check_features(X)
            index = X.index
        else:
            X = validate_data(self, X, dtype="numeric", ensure_all_finite="allow-nan")
            index = pd.RangeIndex(len(X))
        table = outcome_table(y, index)
        name = self.endpoint
        if not isinstance(y, pd.DataFrame):
            survival_target(y)
            name = "survival"
        elif name is None:
            survival_target(y)
            name = next(c.removesuffix("_time") for c in y.columns if str(c).endswith("_time"))
        tasks = check_cohort(X if isinstance(X, pd.DataFrame) else pd.DataFrame(index=index), table, [name])
        self._fit(X, table, tasks, sample_weight)
        self._name = name
        self.unique_times_ = self._times[name]
        outcome = self.outcomes_[name]
        self.event_times_ = np.unique(outcome["time"][outcome["event"]])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Risk, higher = earlier event, (n_patients,)."""
        outputs = self._outputs(X)
        return self._risk(outputs, self._name)

    def predict_survival_function(self, X: Any, return_array: bool = False) -> np.ndarray:
        """Survival functions.

        Parameters
        ----------
        X : pandas.DataFrame or array
        return_array : bool, default=False
            Give probabilities (n_patients, n_times) at ``unique_times_`` instead of step functions.

        Returns
        -------
        ndarray of scikit-survival StepFunction, shape (n_patients,), or of float
        """
        check_is_fitted(self, "net_")
        return self._step_functions(X, self._name, return_array)

    def predict_cumulative_hazard_function(self, X: Any, return_array: bool = False) -> np.ndarray:
        """Cumulative hazard functions; see :meth:`predict_survival_function`."""
        check_is_fitted(self, "net_")
        return self._step_functions(X, self._name, return_array, _cumulative_hazard)

    def predict_risk_group(self, X: Any) -> np.ndarray:
        """Risk group, 0 (low) to 2 (high), by the tertiles of the training risks, (n_patients,)."""
        risk = self.predict(X)
        return np.searchsorted(self.risk_cutpoints_[self._name], risk, side="right")

    def score(self, X: Any, y: Any) -> float:
        """Harrell's C-index."""
        risk = self.predict(X)
        outcome = survival_target(y, self._name if isinstance(y, pd.DataFrame) else None)
        known = ~np.isnan(outcome["time"])
        return concordance_index(outcome["event"][known], outcome["time"][known], risk[known])


def _plain(X: Any) -> Any:
    """A table whose columns have no names, only numbers, is a plain array."""
    if isinstance(X, pd.DataFrame) and not any(isinstance(column, str) for column in X.columns):
        return X.to_numpy()
    return X


def _cumulative_hazard(survival: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(survival, np.finfo(float).tiny, None)) + 0.0
