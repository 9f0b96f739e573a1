"""What the multimodal estimators share: parameters, fitting, and the way from a table to the network's outputs."""

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _check_feature_names, check_is_fitted, validate_data

from mmdls.cohort import Task, check_features, modalities, refuse_other_tables, warn_unused
from mmdls.cohort._cells import take_columns
from mmdls.estimators._constraints import NETWORK_CONSTRAINTS, Finite
from mmdls.estimators.columns._transformer_encoder import as_encoder
from mmdls.estimators.multimodal._modalities import check_names, find_modalities, resolve_modalities
from mmdls.estimators.multimodal._task_answers import TaskAnswers
from mmdls.modules import Outputs
from mmdls.parts import Composed, Part, Slot
from mmdls.registry import encoders, fusions, ordinal_heads, survival_heads
from mmdls.registry import tasks as task_kinds
from mmdls.training._build import fit_network
from mmdls.training._callbacks import history_table
from mmdls.training._completion import Completion
from mmdls.training._inference import forward_cohort
from mmdls.training._inputs import Inputs
from mmdls.training._tables import refuse_no_numbers, rows_with_values
from mmdls.training._trainer import Trainer

__all__ = ["Multimodal"]

# Parameters of the network that have the same name in :func:`mmdls.training._build.build_network`.
_ARCHITECTURE = (
    "fusion hidden_features class_embedding dropout modality_dropout unimodal_loss_weight auxiliary_horizons"
).split()


class Multimodal(Composed, TaskAnswers, _BaseComposition):
    """What the three estimators share: parameters, fitting, and the way from a table to the network's outputs."""

    _parameter_constraints: dict[str, list[Any]] = NETWORK_CONSTRAINTS
    # Columns are found by name; only scikit-learn's own contract for classifiers asks for their order too.
    _columns_in_order = False
    _plain_input: bool
    _unused: Sequence[Any] = ()
    _untaught: Sequence[str] = ()
    _completion: Completion | None = None

    def __init__(
        self,
        modalities: str | Mapping[str, Any] | Sequence[tuple[str, Any, Any]] = "auto",
        *,
        image_encoder: Any = "slices",
        table_encoder: Any = "table",
        fusion: Any = "gated",
        survival_head: Any = "cox",
        ordinal_head: Any = "continuation_ratio",
        heads: Mapping[str, Any] | None = None,
        hidden_features: int = 64,
        class_embedding: int = 16,
        dropout: float = 0.5,
        modality_dropout: float = 0.1,
        unimodal_loss_weight: float = 1.0,
        auxiliary_horizons: Sequence[float] = (),
        n_members: int = 5,
        trainer: Trainer | None = None,
        random_state: Any = None,
    ):
        self.modalities: Any = modalities
        self.image_encoder = image_encoder
        self.table_encoder = table_encoder
        self.fusion = fusion
        self.survival_head = survival_head
        self.ordinal_head = ordinal_head
        self.heads = heads
        self.hidden_features = hidden_features
        self.class_embedding = class_embedding
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.unimodal_loss_weight = unimodal_loss_weight
        self.auxiliary_horizons = auxiliary_horizons
        self.n_members = n_members
        self.trainer = trainer
        self.random_state = random_state

    # -- composition, as in ColumnTransformer ---------------------------------------------------------------------

    @property
    def _encoders(self) -> list[tuple[str, Any]]:
        if isinstance(self.modalities, str | Mapping):
            return []
        try:
            return [(name, encoder) for name, encoder, _ in self.modalities]
        except (TypeError, ValueError):  # what fit will refuse
            return []

    @_encoders.setter
    def _encoders(self, encoders: list[tuple[str, Any]]) -> None:
        self.modalities = [
            (name, encoder, columns) for (name, encoder), (_, _, columns) in zip(encoders, self.modalities, strict=True)
        ]

    def _slots(self) -> dict[str, Slot]:
        listed = dict.fromkeys((name for name, _ in self._encoders), Slot(encoders))
        own = self._get_param_names()
        slots = {
            "image_encoder": Slot(encoders, used=not listed),
            "table_encoder": Slot(encoders, used=not listed),
            "fusion": Slot(fusions, owned=("out_features",)),
            "survival_head": Slot(survival_heads),
            "ordinal_head": Slot(ordinal_heads),
            "trainer": Slot({}, default=Trainer),
        }
        return {name: slot for name, slot in slots.items() if name in own} | listed

    def _unread(self, X: Any) -> set[str]:
        if self._encoders:
            return set()
        kinds = {kind for kind, _ in find_modalities(X, self.modalities).values()} if _is_named(X) else {"table"}
        return {slot for slot, kind in (("image_encoder", "images"), ("table_encoder", "table")) if kind not in kinds}

    def _held(self, slot: str) -> Any:
        return dict(self._encoders)[slot] if slot in dict(self._encoders) else super()._held(slot)

    def _sk_visual_block_(self) -> _VisualBlock:
        listed = getattr(self, "modalities_", self.modalities)
        if isinstance(listed, str):
            listed = [(name, getattr(self, name), listed) for name in ("image_encoder", "table_encoder")]
        elif isinstance(listed, Mapping):
            listed = [(name, "auto", columns) for name, columns in listed.items()]
        names, found, columns = zip(*listed, strict=True)
        blocks = [encoder if encoder == "auto" else Slot(encoders).resolve(encoder) for encoder in found]
        return _VisualBlock("parallel", blocks, names=names, name_details=columns, dash_wrapped=False)

    def _hold(self, slot: str, value: Any) -> None:
        if slot in dict(self._encoders):
            self._encoders = [(name, value if name == slot else encoder) for name, encoder in self._encoders]
        else:
            super()._hold(slot, value)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "hidden_features": optuna.distributions.CategoricalDistribution([32, 64, 128]),
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.7),
        }

    # -- fitting --------------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Refuse parameters that cannot be right, by name."""
        self._validate_params()
        name = type(self).__name__
        months = Finite(Real, 0, None, closed="neither")
        if wrong := [value for value in self.auxiliary_horizons if not months.is_satisfied_by(value)]:
            raise InvalidParameterError(
                f"The 'auxiliary_horizons' parameter of {name} must hold months above 0, such as (12, 36). Got {wrong} "
                f"in {self.auxiliary_horizons!r} instead."
            )
        for registry, head in ((survival_heads, self.survival_head), (ordinal_heads, self.ordinal_head)):
            called = head.name if isinstance(head, Part) else head
            if isinstance(called, str):
                registry[called]  # refuses an unknown name, also where y has no such task
        self._trainer.check()

    def _fit(
        self, table: pd.DataFrame, y: pd.DataFrame, tasks: dict[str, Task], sample_weight: np.ndarray | None
    ) -> None:
        """Train on a table that passed :meth:`_table`, with outcomes and weights in its order."""
        self.modalities_ = self._resolve_modalities(table)
        for name, given, known in (
            ("task_weights", self._trainer.fixed_weights, {*tasks}),
            ("heads", self.heads, {*tasks, *task_kinds}),
        ):
            if strange := [task for task in given or {} if task not in known]:
                raise ValueError(f"{name} names {strange}, which are no tasks of y; its tasks are {list(tasks)}.")
        if tasks and not any(self._trainer.fixed_weights.get(task, 1) for task in tasks):
            raise ValueError(f"task_weights is 0 for every task of y, {list(tasks)}, so nothing would be learned.")
        self.tasks_ = tasks
        used = {column for _, _, columns in self.modalities_ for column in columns}
        if not self._plain_input:
            self.feature_names_in_ = np.asarray([c for c in table.columns if c in used], dtype=object)
            self.n_features_in_ = len(self.feature_names_in_)
        self._unused = [c for c in table.columns if c not in used]
        if self._automatic:
            hint = "To use columns under any name: modalities={'clinical': ['age', 'sex'], ...}."
            warn_unused(table, self._unused, hint, stacklevel=4)
        inputs = self._inputs(table, y, sample_weight, fitting=True)
        self._ignore_untaught(inputs, y)
        self._completion = Completion.fit(inputs, sample_weight)
        inputs = self._completed(inputs)
        self.net_, parameters = fit_network(
            {name: as_encoder(encoder) for name, encoder, _ in self.modalities_},
            inputs,
            y,
            tasks,
            architecture=self._architecture(),
            trainer=self._trainer,
            seed=check_random_state(self.random_state).randint(2**31 - 1),
            n_members=self.n_members,
            sample_weight=sample_weight,
        )
        self.history_ = history_table(self.net_)
        self.combination_ = self._weights()
        for name, encoder, columns in self.modalities_:
            as_encoder(encoder).set_network(self._network.first.encoders[name], columns)
        self._fit_answers(parameters, inputs.present.any(dim=1), y, list(tasks), sample_weight)

    def _architecture(self) -> dict[str, Any]:
        chosen = {"survival": self.survival_head, "ordinal": self.ordinal_head}
        return {name: getattr(self, name) for name in _ARCHITECTURE} | {"heads": chosen | dict(self.heads or {})}

    def _ignore_untaught(self, inputs: Inputs, y: pd.DataFrame) -> None:
        """A modality that no training patient had was never learned: its weights are random, and it is left aside."""
        outcomes = y[[column for task in self.tasks_.values() for column in task.columns]]
        trained = inputs.present & torch.as_tensor(rows_with_values(outcomes))[:, None]
        taught = trained.any(dim=0)
        self._untaught = [name for name, was in zip(inputs.names, taught.tolist(), strict=True) if not was]
        if self._untaught and taught.any():
            inputs.present &= taught
            warnings.warn(
                f"no training patient of known outcome has the modalities {self._untaught}; the model learns nothing "
                "about them, and predictions leave them aside.",
                stacklevel=4,
            )

    @property
    def _automatic(self) -> bool:
        return isinstance(self.modalities, str)

    def _resolve_modalities(self, X: pd.DataFrame) -> list[tuple[str, Any, list[str]]]:
        # Names of listed encoders are prefixes of parameters; those of "auto" and of a dict are not, and may be any.
        check_names(self.modalities)
        self._validate_names([name for name, _ in self._encoders])
        blocks = {"features": list(X.columns)} if self._plain_input else None
        return resolve_modalities(X, self.modalities, self.image_encoder, self.table_encoder, blocks=blocks)

    # -- from a table to the network ------------------------------------------------------------------------------

    def _table(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """X as a table of patients; a plain numeric array, or a table with numbered columns, becomes one block."""
        refuse_other_tables(X, "X")
        named = _is_named(X)
        if named and (reset or not self._plain_input):
            check_features(X)
            if reset:
                self._plain_input = False
            else:
                self._check_columns(X)
            return X
        index = None
        if isinstance(X, pd.DataFrame):
            index = check_features(X).index
        refuse_no_numbers(X)
        if isinstance(X, pd.DataFrame) and not named:
            X = X.to_numpy()
        if not reset and not self._plain_input:
            _check_feature_names(self, X, reset=False)
            raise TypeError(
                "the model was fitted on a table of patients; X must be a pandas DataFrame too, with names of its "
                f"columns; got {type(X).__name__}."
            )
        X = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        if reset:
            self._plain_input = True
        return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])], index=index)

    def _check_columns(self, X: pd.DataFrame) -> None:
        """Every column used in fit must be there; a feature column that fit did not see is refused."""
        given, names = X.columns.tolist(), self.feature_names_in_.tolist()
        present, known, aside = set(given), set(names), set(self._unused)
        missing = [c for c in names if c not in present]
        # What fit set aside, such as identifiers, may look like a feature in other rows.
        if self._automatic and not present <= known | aside:
            known = known.union(*modalities(X[[c for c in given if c not in aside]]).values())
        shown = [c for c in given if c in known]
        if missing and shown:
            of = {c: name for name, _, columns in self.modalities_ for c in columns}
            gone = sorted({of[c] for c in missing})
            raise ValueError(
                "The feature names should match those that were passed during fit.\n"
                "Feature names seen at fit time, yet now missing:\n"
                + "".join(f"- {c}\n" for c in missing)
                + f"They belong to the modalities {gone}; for patients without them, fill the columns with NaN or None."
            )
        if not self._columns_in_order:
            place = {c: i for i, c in enumerate(names)}
            shown = sorted(shown, key=lambda c: place.get(c, -1))
        if shown != names:
            _check_feature_names(self, X[shown], reset=False)  # says what differs

    def _inputs(
        self,
        X: pd.DataFrame,
        y: pd.DataFrame | None = None,
        sample_weight: np.ndarray | None = None,
        *,
        fitting: bool = False,
    ) -> Inputs:
        data = {}
        for name, transformer, columns in self.modalities_:
            part, encoder = take_columns(X, columns), as_encoder(transformer)
            if fitting:
                encoder.fit_preprocessing(part, y, sample_weight)
            data[name] = encoder.prepare(part, n_jobs=self._trainer.n_jobs, verbose=self._trainer.verbose)
        inputs = Inputs.of(data)
        if not fitting:
            self._leave_aside(inputs)
        alone = ~inputs.present.any(dim=1).numpy()
        if alone.all() and fitting:
            raise ValueError(
                f"no patient in X has any of the modalities {inputs.names}: every cell of theirs is missing."
            )
        if alone.any() and not fitting:
            warnings.warn(
                f"{alone.sum()} of {len(X)} patients have none of the modalities {inputs.names}; their predictions are "
                f"the average of the training patients. First: {list(X.index[alone][:3])}.",
                stacklevel=4,
            )
        return inputs if fitting else self._completed(inputs)

    def _completed(self, inputs: Inputs) -> Inputs:
        return inputs if self._completion is None else self._completion.fill(inputs)

    def present_modalities(self, X: Any) -> pd.DataFrame:
        """Which modalities each patient has; one who has none is answered by the average of the training patients.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_modalities), bool
        """
        check_is_fitted(self, "net_")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is in the table
            inputs = self._inputs(self._table(X, reset=False))
        return pd.DataFrame(inputs.measured.numpy(), X.index if isinstance(X, pd.DataFrame) else None, inputs.names)

    def _leave_aside(self, inputs: Inputs) -> None:
        for name in self._untaught:
            column = inputs.names.index(name)
            given = int(inputs.present[:, column].sum())
            if given:
                warnings.warn(
                    f"{given} of {len(inputs)} patients have the modality {name!r}, which no training patient had; it "
                    "is left aside.",
                    stacklevel=5,
                )
                inputs.present[:, column] = False

    def _weights(self) -> pd.DataFrame:
        rows = [self._network.weights(name) for name in self.tasks_]
        return pd.DataFrame(rows, list(self.tasks_), ["networks", "linear"])

    def _outputs(self, X: Any) -> Outputs:
        check_is_fitted(self, "net_")
        inputs = self._inputs(self._table(X, reset=False))
        return forward_cohort(self._network, inputs, self._trainer.compute())

    @property
    def _trainer(self) -> Trainer:
        return Trainer() if self.trainer is None else self.trainer

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


def _is_named(X: Any) -> bool:
    """Whether X is a table whose columns have names, by which modalities are found."""
    return isinstance(X, pd.DataFrame) and any(isinstance(column, str) for column in X.columns)
