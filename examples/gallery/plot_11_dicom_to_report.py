"""
From DICOM to a report
======================

A folder of CT, PET and contours in DICOM and a table in Excel become a cohort; a model is fitted, explained and
reported.
"""

# %%
# A simulated scanner writes what a hospital would deliver: a folder a patient, and a table with paths.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from mmdls import MMDLS, Trainer, cross_predict, prepare_cohort
from mmdls.datasets import load_cohort, make_scans
from mmdls.explain import explain_image
from mmdls.report import report

folder = Path(tempfile.mkdtemp())
simulated = make_scans(folder / "scans", n_patients=10, random_state=0)
simulated.scans.join(simulated.data).join(simulated.target).to_excel(folder / "patients.xlsx", index_label="patient_id")

# %%
# Scans to slices, PET features and radiomics. A run that was stopped goes on; ``overview.html`` shows every patient
# with the outlines of the masks. Look at it before anything else.
log = prepare_cohort(
    folder / "patients.xlsx",
    folder / "cohort",
    lesion="structures",
    lesion_label="lesion",
    lung="structures",
    lung_label=["lung-left", "lung-right"],
    n_slices=6,
    radiomics={"spacing": 3.0, "bin_width": 25.0},
)
print(log["status"].value_counts())
sheet = plt.imread(folder / "cohort" / "sheets" / f"{log.index[0]}.png")
fig, ax = plt.subplots(figsize=(9, 9 * sheet.shape[0] / sheet.shape[1]), layout="constrained")
ax.imshow(sheet)
ax.set_axis_off()

# %%
# Ten patients are a test of the plumbing, not of a model.
X, y = load_cohort(folder / "cohort", return_X_y=True)
X = X.drop(columns=["centre", "treatment", "lung_mask", "lesion_mask"])
y = y[["os_time", "os_event"]]
model = MMDLS(n_members=1, trainer=Trainer(max_epochs=3, validation_fraction=0), random_state=0)
predictions = cross_predict(model, X, y, cv=2)
report({"MMDLS": predictions}, X, y, "report.html", horizons=[12], n_resamples=50)

# %%
# Where the network looks, in the slices of one patient.
explain_image(model.fit(X, y), X[:1], "os", image="lesion").plot(n_slices=3)
