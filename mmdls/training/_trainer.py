"""How a network is trained: one estimator's worth of parameters, shared by all that train networks of patients."""

from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar

import optuna
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError, StrOptions
from skorch.callbacks import Callback

from mmdls._parameters import Finite, count, share
from mmdls.parts import Part
from mmdls.registry import task_weights
from mmdls.training._compute import Compute

__all__ = ["Trainer"]


class Trainer(BaseEstimator):
    """How a network is trained: optimiser, epochs, early stopping, device.

    Parameters
    ----------
    optimizer : {"adamw", "adam"}, default="adamw"
    max_epochs : int, default=40
    learning_rate : float, default=3e-3
    weight_decay : float, default=0.5
    batch_size : int or "auto", default="auto"
        Patients of a step, which are the risk set of a Cox loss; ``"auto"`` is a sixteenth of them, 64 to 512.
    micro_batch_size : int or "auto", default="auto"
        Slices encoded at a time; changes memory and speed, not the result.
    validation_fraction : float, default=0.15
        Patients that a single network holds out, stratified by outcome, to stop early; 0 trains for ``max_epochs``. The
        members of an ensemble divide the patients among them instead, unless it is 0.
    patience : int, default=25
        Epochs without a better validation loss before training stops; the best weights are restored. None never stops,
        and keeps the last.
    schedule : {"cosine", None}, default="cosine"
        Of the learning rate.
    gradient_clip : float, default=5.0
        Largest norm of the gradient; None does not clip.
    precision : {"float32", "bf16"}, default="float32"
        ``"bf16"`` reads images in bfloat16: about twice as fast where processor or GPU knows it.
    compile : bool, default=False
        Translate the image backbones with ``torch.compile`` before training.
    n_jobs : int, default=None
        Workers that decode images.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Processes that share ``torch.distributed`` train one model together, each on a GPU of its own.
    verbose : int, default=0
        1 shows progress bars.
    task_weights : dict of str to float, str, class or Part, default=None
        Weight of each task's loss, 1 where none is given; or a name in ``mmdls.registry.task_weights``, such as
        ``"famo"``, by which weights are learned. Held-out losses that select the best epoch have the weights of a dict.
    callbacks : list of skorch callbacks, or of (name, callback), default=None
        Called with the net after every batch and epoch, as in skorch; ``skorch.callbacks`` has some that write to
        MLflow or TensorBoard. They are used as they are: copies of this trainer share them, since a logger may hold a
        file or a connection open.
    checkpoint : path, default=None
        A folder that keeps the state of a training after every epoch. If the process is killed, the same command, with
        the same ``random_state``, goes on from there to the same result. Every training has a file of its own, which is
        removed when it is finished; it holds what networks say of held-out patients, without ids. Of ``callbacks``,
        plain attributes that end in ``_`` are kept.

    Examples
    --------
    >>> from mmdls import MMDLS
    >>> MMDLS(trainer=Trainer(max_epochs=10)).set_params(trainer__learning_rate=1e-3).trainer
    Trainer(learning_rate=0.001, max_epochs=10)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "optimizer": [StrOptions({"adamw", "adam"})],
        "max_epochs": [count(1)],
        "learning_rate": [Finite(Real, 0, None, closed="neither")],
        "weight_decay": [Finite(Real, 0, None, closed="left")],
        "batch_size": [count(1), StrOptions({"auto"})],
        "micro_batch_size": [count(1), StrOptions({"auto"})],
        "validation_fraction": [share()],
        "patience": [count(1), None],
        "schedule": [StrOptions({"cosine"}), None],
        "gradient_clip": [Finite(Real, 0, None, closed="neither"), None],
        "precision": [StrOptions({"float32", "bf16"})],
        "compile": ["boolean"],
        "n_jobs": [Integral, None],
        "device": [str],
        "verbose": ["verbose"],
        "task_weights": [dict, str, callable, Part, None],
        "callbacks": [list, tuple, None],
        "checkpoint": [str, PathLike, None],
    }

    def __init__(
        self,
        *,
        optimizer: str = "adamw",
        max_epochs: int = 40,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.5,
        batch_size: int | str = "auto",
        micro_batch_size: int | str = "auto",
        validation_fraction: float = 0.15,
        patience: int | None = 25,
        schedule: str | None = "cosine",
        gradient_clip: float | None = 5.0,
        precision: str = "float32",
        compile: bool = False,
        n_jobs: int | None = None,
        device: str = "cpu",
        verbose: int = 0,
        task_weights: Any = None,
        callbacks: Sequence[Callback | tuple[str, Callback]] | None = None,
        checkpoint: str | PathLike | None = None,
    ):
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
        self.compile = compile
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose
        self.task_weights = task_weights
        self.callbacks = callbacks
        self.checkpoint = checkpoint

    def __sklearn_clone__(self) -> "Trainer":
        return type(self)(**self.get_params(deep=False))

    def patients_a_step(self, n_patients: int) -> int:
        """The batch size for a number of patients to learn from."""
        return min(max(n_patients // 16, 64), 512) if isinstance(self.batch_size, str) else self.batch_size

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "learning_rate": optuna.distributions.FloatDistribution(5e-4, 1e-2, log=True),
            "weight_decay": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True),
        }

    def check(self) -> None:
        """Refuse parameters that cannot be right, by name.

        Raises
        ------
        InvalidParameterError
            If a parameter has a wrong type or value.
        """
        self._validate_params()
        weight = Finite(Real, 0, None, closed="left")
        if isinstance(self.task_weights, str) and self.task_weights not in task_weights:
            raise InvalidParameterError(
                "The 'task_weights' parameter of Trainer must be a dict of weights, or one of "
                f"{', '.join(map(repr, task_weights))}. Got {self.task_weights!r} instead."
            )
        if strange := {task: value for task, value in self.fixed_weights.items() if not weight.is_satisfied_by(value)}:
            raise InvalidParameterError(
                f"The 'task_weights' parameter of Trainer must hold numbers of 0 or more. Got {strange} instead."
            )
        if others := [one for one in self.callbacks or () if not isinstance(_callback(one), Callback)]:
            raise InvalidParameterError(
                "The 'callbacks' parameter of Trainer must hold skorch callbacks, or pairs of a name and a callback. "
                f"Got {others} instead."
            )

    @property
    def fixed_weights(self) -> dict[str, float]:
        """The weights of tasks that were given as numbers."""
        return dict(self.task_weights) if isinstance(self.task_weights, dict) else {}

    def compute(self) -> Compute:
        """The device and how it is used."""
        return Compute(self.device, self.precision, self.micro_batch_size, self.compile)


def _callback(given: Any) -> Any:
    """The callback, of one with or without a name."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str):
        return given[1]
    return given
