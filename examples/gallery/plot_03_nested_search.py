"""
The best of many trials is too good
===================================

A search reports the best score that it saw. What the search is worth, patients tell whom no trial has seen: a search
inside every fold.
"""

# %%
# Radiomics are noise here, so that no penalty can be of any use: the true concordance of a model of them is one half.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mmdls import ClinicalCox, OptunaSearch, cross_predict
from mmdls.evaluation import evaluate_predictions
from mmdls.model_selection import CohortKFold

rng = np.random.default_rng(3)
X = pd.DataFrame(rng.normal(size=(120, 40)), index=[f"P{k}" for k in range(120)]).add_prefix("radiomics_")
y = pd.DataFrame({"os_time": rng.exponential(30, 120), "os_event": rng.random(120) < 0.7}, index=X.index)

subsets = {f"columns {k} to {k + 7}": [f"radiomics_{c}" for c in range(k, k + 8)] for k in range(0, 36, 4)}
space = {
    "columns": CategoricalDistribution(list(subsets.values())),
    "alpha": FloatDistribution(0.1, 100, log=True),
}
search = OptunaSearch(
    ClinicalCox(columns="radiomics"), space, cv=CohortKFold(3, random_state=0), n_trials=20, random_state=0
)

# %%
# Once on everybody, for what it says of itself; then inside three folds.
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
ax.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=4, frameon=False)
print(f"the search says {itself.best_score_:.2f}, patients whom it has not seen say {nested['value']:.2f}")
