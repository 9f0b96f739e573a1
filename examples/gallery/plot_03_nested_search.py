"""
The best of many trials is too good
===================================

A search reports the best score that it saw. What the search is worth, patients tell whom no trial has seen: a search
inside every fold.
"""

# %%
# Ten blocks of textures, all of them noise, so that neither a block nor a penalty is of any use: the true concordance
# of every model is one half.
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mmdls import ClinicalCox, OptunaSearch, cross_predict
from mmdls.evaluation import evaluate_predictions
from mmdls.model_selection import CohortKFold

rng = np.random.default_rng(3)
columns = [f"texture{block}_{k}" for block in range(10) for k in range(8)]
X = pd.DataFrame(rng.normal(size=(120, 80)), index=[f"P{k}" for k in range(120)], columns=columns)
y = pd.DataFrame({"os_time": rng.exponential(30, 120), "os_event": rng.random(120) < 0.7}, index=X.index)

space = {
    "columns": CategoricalDistribution([f"texture{k}" for k in range(10)]),
    "alpha": FloatDistribution(0.1, 100, log=True),
}
search = OptunaSearch(
    ClinicalCox(columns="texture0"), space, cv=CohortKFold(3, random_state=0), n_trials=20, random_state=0
)

# %%
# Once on everybody, for what it says of itself; then inside three folds. Each model warns of the columns that it does
# not read; here that is known.
warnings.simplefilter("ignore")
itself = search.fit(X, y)
predictions = cross_predict(search, X, y, cv=CohortKFold(3, random_state=1))
nested = evaluate_predictions(predictions, y, horizons=(), n_resamples=300).set_index("metric").loc["concordance_index"]

scores = np.array([trial.value for trial in itself.study_.trials if trial.value is not None])
fig, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
ax.plot(np.arange(1, len(scores) + 1), scores, "o", color="0.6", label="a trial")
ax.plot(
    np.arange(1, len(scores) + 1),
    np.maximum.accumulate(scores),
    color="#D55E00",
    label="the best so far",
)
ax.axhspan(nested["low"], nested["high"], color="#0072B2", alpha=0.15, linewidth=0)
ax.axhline(nested["value"], color="#0072B2", label="nested, with interval")
ax.axhline(0.5, color="black", linestyle=":", label="the truth")
ax.set(xlabel="Trial", ylabel="Harrell's C", xticks=range(1, len(scores) + 1, 2))
fig.legend(loc="outside lower center", ncols=2, frameon=False)
print(f"the search says {itself.best_score_:.2f}, patients whom it has not seen say {nested['value']:.2f}")
