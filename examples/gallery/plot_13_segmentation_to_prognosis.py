"""
From CT to masks to prognosis
=============================

A segmentor is the first step of a pipeline, and is learned again in every fold.
"""

# %%
# CT slices with masks of lung and lesion, and outcomes.
import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from mmdls import MMDLS, LungLesionSegmentor, Trainer
from mmdls.datasets import make_nsclc_cohort

X, y = make_nsclc_cohort(120, n_slices=3, image_size=48, masks=True, return_X_y=True, random_state=0)
X = X.rename(columns={"lung_image": "ct_image"})[["ct_image", "lung_mask", "lesion_mask", "clinical_age"]]
y = y[["os_time", "os_event"]]

segmentor = LungLesionSegmentor(image_size=48, max_epochs=12, crop_size=32, random_state=0)
prognosis = MMDLS(n_members=1, trainer=Trainer(max_epochs=8), random_state=0)
pipeline = make_pipeline(segmentor, prognosis).fit(X[:90], y[:90])
print("Harrell's C", round(pipeline.score(X[90:], y[90:]), 2))

# %%
# New patients need a CT and no mask. Outlines: what was found, and the truth, dashed.
new = X[90:].drop(columns=["lung_mask", "lesion_mask"])
found = pipeline[0].predict(new[["ct_image"]])
print("mean Dice", round(pipeline[0].score(X[90:]), 2))
fig, panels = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for panel, patient in zip(panels, new.index, strict=False):
    k = len(new.loc[patient, "ct_image"]) // 2
    panel.imshow(new.loc[patient, "ct_image"][k], cmap="gray")
    for name, colour in (("lung_mask", "#56B4E9"), ("lesion_mask", "#D55E00")):
        if found.loc[patient, name] is not None and found.loc[patient, name][k].any():
            panel.contour(found.loc[patient, name][k], [0.5], colors=colour, linewidths=1.5)
        panel.contour(X.loc[patient, name][k], [0.5], colors=colour, linewidths=0.8, linestyles="--")
    panel.set_title(patient, fontsize=9)
    panel.set_axis_off()
