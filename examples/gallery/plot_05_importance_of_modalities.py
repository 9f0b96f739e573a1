"""
What does each modality add?
============================

Shapley values of modalities: the mean gain of a modality over all orders of adding them, out of fold.
"""

# %%
# A model that has met patients without a modality knows what to do without it. One that only had them hidden now and
# then knows less well; the values say what *this* model makes of each subset.
from mmdls import MMDLS, Trainer, plotting
from mmdls.datasets import make_nsclc_cohort
from mmdls.explain import modality_importance

missing = {"pet": 0.3, "lesion": 0.2}
X, y = make_nsclc_cohort(
    300, n_slices=1, image_size=16, n_radiomics=8, missing=missing, return_X_y=True, random_state=0
)
X = X.drop(columns=["centre", "treatment", "lung_image"])
y = y[["stage", "os_time", "os_event"]]
model = MMDLS(n_members=1, trainer=Trainer(max_epochs=20), random_state=0)
found = modality_importance(model, X, y, cv=3, n_resamples=200)
print(found.cohort)

# %%
# The values of a task sum to its last row: what the full model gains over the average prediction.
stage = found.cohort.query("task == 'stage'")
ax = plotting.forest(stage, label="modality", counts=False, reference=0, xlabel="Gain in AUC of stage")

# %%
# The same of one patient: what each modality adds to the probability of each stage.
found.patients["stage"].iloc[0].unstack().round(3)
