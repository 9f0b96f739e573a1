"""
Death of cancer, death of something else
========================================

Patients who die of their hearts are not censored: they will never die of cancer. Competing risks are an outcome with a
cause.
"""

# %%
# 0 = censored, 1 = cancer, 2 = another cause. Age drives the one, the tumour the other.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmdls import MMDLS, Trainer, plotting

rng = np.random.default_rng(0)
n = 600
X = pd.DataFrame(
    {"clinical_age": rng.normal(68, 9, n), "clinical_diameter": rng.lognormal(1, 0.4, n)},
    index=[f"P{k}" for k in range(n)],
)
times = np.column_stack(
    [
        rng.uniform(12, 96, n),
        rng.exponential(70 * np.exp(-0.5 * (X["clinical_diameter"] - 3))),
        rng.exponential(90 * np.exp(-0.06 * (X["clinical_age"] - 68))),
    ]
)
y = pd.DataFrame({"death_time": times.min(axis=1), "death_cause": times.argmin(axis=1)}, index=X.index)

# %%
# One minus Kaplan-Meier, with other deaths as censored, overstates the deaths of cancer. The Aalen-Johansen estimate
# does not, and the mean of the predictions (dashed) follows it among patients who were not learned from.
model = MMDLS(n_members=1, trainer=Trainer(max_epochs=30), random_state=0).fit(X[:400], y[:400])
test, outcomes = X[400:], y[400:]
predicted = model.predict_cumulative_incidence(test, "death")
fig, ax = plt.subplots(figsize=(6.5, 5), layout="constrained")
labels = {1: "cancer", 2: "other causes"}
plotting.cumulative_incidence(outcomes["death_cause"], outcomes["death_time"], predicted, labels=labels, ax=ax)
