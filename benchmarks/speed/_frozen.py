"""A search with frozen encoders."""

import argparse
import tempfile

import numpy as np
import optuna

from benchmarks.speed._measuring import Step, Variant, compared, difference
from benchmarks.speed._report import Report
from mmdls import Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MultimodalSurvival, SliceEncoder


def searches(device: str, memory: str | None, trainable: bool, n: int, size: int, trials: int, epochs: int) -> Step:
    """An Optuna search over fusion and heads; the patients are the same in every trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    X, y = make_nsclc_cohort(n, n_slices=(4, 8), image_size=size, return_X_y=True, random_state=0)
    X, y = X[["lesion_image", "clinical_age"]], y[["os_time", "os_event"]]
    train, held = np.arange(n) < 0.7 * n, np.arange(n) >= 0.7 * n

    def step() -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory(dir=memory) as fresh:
            encoder = SliceEncoder(backbone="conv", trainable=trainable, memory=None if memory is None else fresh)

            def objective(trial: optuna.Trial) -> float:
                model = MultimodalSurvival(
                    image_encoder=encoder,
                    fusion=trial.suggest_categorical("fusion", ["gated", "concat"]),
                    dropout=trial.suggest_float("dropout", 0.0, 0.5),
                    trainer=Trainer(max_epochs=epochs, device=device),
                    random_state=0,
                )
                return model.fit(X[train], y[train]).score(X[held], y[held])

            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
            study.optimize(objective, n_trials=trials)
        return {"scores": np.asarray([trial.value for trial in study.trials])}

    return step


def frozen_search(options: argparse.Namespace, say: Report) -> None:
    """Row (f)."""
    size = {"n": 40, "size": 32, "trials": 3, "epochs": 3}
    if not options.quick:
        size = {"n": 60, "size": 64, "trials": 8, "epochs": 8}
    with tempfile.TemporaryDirectory() as root:
        variants = {
            "frozen, memory": Variant(searches, {**size, "memory": root, "trainable": False}),
            "frozen": Variant(searches, {**size, "memory": None, "trainable": False}),
            "end to end": Variant(searches, {**size, "memory": None, "trainable": True}),
        }
        found = say.measure(variants, repeats=1 if options.quick else 2)
    job = f"search of {size['trials']} trials x {size['epochs']} epochs, {size['n']} patients, {size['size']}^2"
    note = difference(found["frozen, memory"].answer, found["frozen"].answer)
    say.row(compared("f", job, "frozen, memory", "frozen", found, note="scores " + note))
    say.row(compared("f", job, "frozen, memory", "end to end", found, note="another model"))
