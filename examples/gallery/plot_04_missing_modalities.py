"""
Any modality may be missing
===========================

One model for patients with everything and for those without PET, without images, or with nothing but an age.
"""

# %%
# Three in ten patients lack the PET, two in ten the slices of the lesion, already in training.
import matplotlib.pyplot as plt

from mmdls import MMDLS, Trainer, evaluate
from mmdls.datasets import make_nsclc_cohort

missing = {"pet": 0.3, "lesion": 0.2}
X, y = make_nsclc_cohort(
    500, n_slices=2, image_size=24, n_radiomics=8, missing=missing, return_X_y=True, random_state=2
)
X, y = X.drop(columns=["centre", "treatment"]), y[["stage", "os_time", "os_event"]]
model = MMDLS(n_members=1, modality_dropout=0.2, trainer=Trainer(max_epochs=25), random_state=0).fit(X[:350], y[:350])

# %%
# At prediction a modality is taken from everybody by empty cells. Nothing is fitted again.
blocks = {name: [c for c in X if c.startswith(name)] for name in ("clinical", "pet", "radiomics", "lesion", "lung")}
test, outcomes, rows = X[350:], y[350:], {}
for name in [None, *blocks]:
    hidden = test.copy()
    for column in blocks.get(name, []):
        hidden[column] = None
    scores = evaluate(model, hidden, outcomes, horizons=(), n_resamples=100).set_index(["task", "metric"])["value"]
    rows["everything" if name is None else f"without {name}"] = [
        scores["stage", "auc"],
        scores["os", "concordance_index"],
    ]

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
places = range(len(rows))[::-1]
for k, (label, colour) in enumerate([("stage, AUC", "#0072B2"), ("overall survival, Harrell's C", "#D55E00")]):
    ax.plot([row[k] for row in rows.values()], [place - 0.15 * k for place in places], "o", color=colour, label=label)
ax.set_yticks(places, rows)
ax.set(xlabel="150 patients who were not learned from", xlim=(0.45, 1))
ax.grid(axis="x", color="0.9")
ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2, frameon=False)
