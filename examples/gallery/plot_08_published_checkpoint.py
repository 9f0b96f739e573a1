"""
The published network, forward
==============================

The architecture of the publication, with the weights of its checkpoint, on a table of patients.
"""

# %%
# ``MMDLS_DATA`` names the folder that holds the checkpoint, ``mm_dls_reference/best_model.pt``. Without it the same
# network is trained here for one epoch, so that the page runs; its numbers then mean nothing.
import os
from pathlib import Path

import matplotlib.pyplot as plt

from mmdls import MMDLS
from mmdls.datasets import make_nsclc_cohort

X, y = make_nsclc_cohort(40, n_slices=2, image_size=64, n_radiomics=128, return_X_y=True, random_state=0)
orders = {"clinical_sex": ["female", "male"], "clinical_smoking_status": ["never", "former", "current"]}
for column, order in orders.items():
    X[column] = X[column].map(order.index).astype(float)  # the published network reads numbers
tables = X.filter(regex="^(clinical|pet|radiomics)_")
X[tables.columns] = (tables - tables.mean()) / tables.std()  # the units of the publication are not known

checkpoint = Path(os.environ.get("MMDLS_DATA", "")) / "mm_dls_reference" / "best_model.pt"
if checkpoint.exists():
    model = MMDLS.published(checkpoint=checkpoint)
else:
    print("There is no checkpoint: one epoch of training instead.")
    model = MMDLS.published(trainer__max_epochs=1, lesion__image_size=64, lung__image_size=64).fit(X, y)
print(f"{sum(weights.numel() for weights in model.net_.module_.parameters()):,} weights")

# %%
# Labels and risks of every patient. The columns are those of the publication: 128 radiomics, five of PET, six clinical.
answers = model.predict(X)
print(answers.head())

# %%
# A checkpoint holds no baseline hazard, so it ranks patients and gives no probability. ``fit_baselines`` estimates one
# on patients of yours; the network stays as it is. These patients are simulated: what the curves say is of no use.
model.fit_baselines(X, y)
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
left.scatter(answers["dfs"], answers["os"], color="#0072B2", s=16)
left.set(xlabel="Risk of relapse", ylabel="Risk of death")
order = answers["os"].sort_values().index
colours = {"low": "#0072B2", "middle": "#E69F00", "high": "#D55E00"}
for (name, colour), patient in zip(colours.items(), [order[0], order[len(order) // 2], order[-1]], strict=True):
    (curve,) = model.predict_survival_function(X.loc[[patient]], "os")
    right.step(curve.x, curve.y, where="post", color=colour, label=name)
right.set(xlabel="Months", ylabel="Overall survival", ylim=(0, 1.02))
right.legend(title="Risk", frameon=False, loc="lower left")
