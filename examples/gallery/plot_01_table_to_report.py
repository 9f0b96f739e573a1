"""
From a hospital's table to a report
===================================

A CSV with days, statuses 1 and 2, stages as text and columns of PyRadiomics becomes a cohort, a comparison of two
models out of fold, a report and a saved model.
"""

# %%
# The table
# ---------
# Somebody else's export, written here so that the page runs: follow-up in days, 2 = died as in R's ``survival``,
# stages as pathologists write them, sex as M and F, and the first of 107 columns of PyRadiomics.
import numpy as np
import pandas as pd

import mmdls
from mmdls import compare_models, plotting
from mmdls.cohort import read_cohort
from mmdls.report import report

rng = np.random.default_rng(7)
n = 240
volume = rng.lognormal(9, 1, n)
stage = pd.Series(rng.choice(["IA", "IB", "IIB", "IIIA", "IV"], n, p=[0.3, 0.2, 0.2, 0.2, 0.1]))
age = rng.normal(66, 9, n).round()
risk = 0.5 * (stage == "IV") + 0.35 * np.log(volume / 8000) + 0.03 * (age - 66)
days = rng.exponential(1300 * np.exp(-risk))
seen = rng.uniform(300, 2200, n)
pd.DataFrame(
    {
        "Patient": [f"P{k:03d}" for k in range(n)],
        "Age": age,
        "Sex": rng.choice(["M", "F"], n),
        "TNM": "Stage " + stage,
        "OS.days": np.minimum(days, seen).round(),
        "status": np.where(days < seen, 2, 1),
        "original_shape_MeshVolume": volume,
        "original_firstorder_Entropy": rng.normal(4, 1, n) + 0.3 * np.log(volume),
        "original_glcm_Contrast": rng.normal(20, 4, n),
        "diagnostics_Versions_PyRadiomics": "3.0.1",
    }
).to_csv("patients.csv", index=False)

# %%
# Reading it
# ----------
# What has one meaning is read; what is ambiguous must be said: the unit of the times, and what 1 and 2 mean. The stage
# is known when survival is predicted, so it is a clinical variable here, with an order.
X, y = cohort = read_cohort(
    "patients.csv",
    id="Patient",
    endpoints={"os": ("OS.days", "status")},
    units={"os": "days"},
    codes={"status": {1: 0, 2: 1}},
    blocks={"clinical": ["Age", "Sex", "TNM"]},
    ordered={"TNM": ["I", "II", "III", "IV"]},
)
print(cohort)

# %%
# Two models, the same folds
# --------------------------
# A Cox model of the clinical variables, and one that reads the radiomics too.
found = compare_models(
    {"clinical": "clinical_cox", "with radiomics": "coxnet"},
    X,
    y,
    cv=5,
    n_resamples=200,
    horizons=[24, 36],
)
print(found)
report(found, X, y, "report.html", horizons=[24, 36], n_resamples=200)

# %%
# Every patient is in the risk group that a model without them chose, by cut-points of its own training patients.
groups = found.risk_groups["with radiomics", "os"]
ax = plotting.kaplan_meier(y["os_event"], y["os_time"], groups, ylabel="Overall survival")
ax.set_title("By risk group, out of fold")

# %%
# The model to keep
# -----------------
# Fitted on everybody, in one file that is safe to load.
model = mmdls.create("coxnet").fit(X, y)
mmdls.save(model, "coxnet.mmdls", metrics=found.scores, intended_use="An example.")
mmdls.load("coxnet.mmdls").predict(X[:3])
