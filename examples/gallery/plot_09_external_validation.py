"""
Another hospital, another follow-up
===================================

A model that was learned in one place is evaluated in another, where patients are followed for a shorter time.
"""

# %%
# The second hospital has another case mix, and loses patients twice as fast.
import matplotlib.pyplot as plt
import numpy as np

from mmdls import evaluate, plotting
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import CoxNet
from mmdls.metrics import median_follow_up

X, y = make_nsclc_cohort(500, n_slices=1, image_size=8, return_X_y=True, random_state=0)
X_there, y_there = make_nsclc_cohort(
    400, n_slices=1, image_size=8, censoring=2, centre_shift=0.5, return_X_y=True, random_state=9
)
os = ["os_time", "os_event"]
for name, outcomes in (("here", y), ("there", y_there)):
    months = median_follow_up(outcomes["os_event"], outcomes["os_time"])
    print(f"{name}: {outcomes['os_event'].mean():.0%} died; median follow-up {months:.0f} months")

X, X_there = (table.filter(regex="^clinical_|^pet_") for table in (X, X_there))
model = CoxNet(columns="all").fit(X, y[os])

# %%
# Weights for censoring are those of the patients who are scored, so the metrics of the second hospital use its own
# follow-up. Asked for a month that hardly anybody was followed for, the note says so.
table = evaluate(model, X_there, y_there[os], horizons=[12, 24], n_resamples=200)
print(table[["metric", "horizon", "value", "low", "high"]].round(3).to_string())
print(table["note"].iloc[3])

# %%
# Ranks often travel, probabilities less: calibration is looked at first.
curves = model.predict_survival_function(X_there)
survival = [curve(24.0) for curve in curves]
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
plotting.survival_calibration(y_there["os_event"], y_there["os_time"], survival, 24.0, ax=left)
groups = np.digitize(model.predict(X_there), model.risk_cutpoints_["os"])  # cut-points of the first hospital
names = dict(enumerate(("low", "middle", "high")))
options = {"labels": names, "ylabel": "Overall survival", "at_risk": False}
plotting.kaplan_meier(y_there["os_event"], y_there["os_time"], groups, ax=right, **options)
