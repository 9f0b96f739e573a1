"""
Do images add to clinical variables?
====================================

A multimodal model against a clinical one, out of fold, on folds with the same share of deaths and of centres.
"""

# %%
# The folds decide what the numbers mean. Stratified by events, no fold is without them; stratified by centre, no
# centre is only in one fold. Both models see the same folds, so that their difference has no chance of the division
# in it.
from mmdls import MMDLS, Trainer, compare_models, plotting
from mmdls.datasets import make_nsclc_cohort
from mmdls.model_selection import CohortKFold

X, y = make_nsclc_cohort(300, n_slices=3, image_size=32, n_radiomics=8, return_X_y=True, random_state=1)
y = y[["os_time", "os_event"]]
folds = list(CohortKFold(3, on=("os", "centre"), random_state=0).split(X, y))
X = X.drop(columns=["centre", "treatment"])  # no model reads them
models = {
    "clinical": "clinical_cox",
    "all tables": "coxnet",
    "tables and images": MMDLS(n_members=1, trainer=Trainer(max_epochs=25), random_state=0),
}
found = compare_models(models, X, y, cv=folds, n_resamples=300)
print(found)

# %%
# A difference has an interval of its own. Two overlapping intervals of the models say nothing about it.
table = found.differences.query("metric == 'concordance_index'")
ax = plotting.forest(
    table, label="model", counts=False, reference=0, xlabel="Harrell's C, gain over the clinical model"
)
