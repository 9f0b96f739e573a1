"""How long one patient takes: tables and 8 slices of 96 x 96 in RAM, by the model itself and by its exported network.

``python -m benchmarks.serving`` prints medians of 50 answers and says whether one patient got the answer of the batch.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.base import clone

import mmdls
from mmdls.cohort import cell_columns
from mmdls.datasets import make_nsclc_cohort
from mmdls.persistence import network_inputs

BOUND = 0.030  # seconds


def milliseconds(answer: Callable[[], object], n: int) -> str:
    """Median and 95th percentile of the time of an answer."""
    seconds = []
    for _ in range(n + 5):
        start = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - start)
    found = np.array(seconds[5:]) * 1000
    return f"{np.median(found):6.1f} ms (95 %: {np.quantile(found, 0.95):.1f} ms)"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    X, y = make_nsclc_cohort(30, n_slices=8, image_size=96, return_X_y=True, random_state=0)
    for n in options.members:
        trainer = mmdls.Trainer(max_epochs=1)
        model = mmdls.MMDLS(n_members=n, trainer=trainer, random_state=0).fit(X, y)
        together, one = model.predict_tasks(X), X.iloc[[7]]
        apart = max(
            np.abs(model.predict_tasks(one)[t] - table.iloc[[7]]).to_numpy().max() for t, table in together.items()
        )
        with tempfile.TemporaryDirectory() as folder:
            mmdls.export(model, f"{folder}/network.pt2", X[:2])
            program = torch.export.load(f"{folder}/network.pt2").module()
        inputs = network_inputs(model, one)
        tables = X.drop(columns=cell_columns(X))
        alone = clone(model).fit(tables, y)
        steps = {
            "predict": partial(model.predict, one),
            "inputs of the network": partial(network_inputs, model, one),
            "exported network": partial(program, *inputs),
            "predict, tables alone": partial(alone.predict, tables.iloc[[7]]),
        }
        for step, answer in steps.items():
            print(f"{n} members, {step:22} {milliseconds(answer, options.repeats)}")
        print(
            f"{n} members, one patient against the batch: greatest difference {apart:.1e}; bound {BOUND * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
