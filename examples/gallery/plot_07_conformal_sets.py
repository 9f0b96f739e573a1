"""
Sets of labels that hold at a stated rate
=========================================

Nine in ten sets of stages hold the true stage, and nine in ten patients outlive their bound, whatever the model is
worth. A worse model has larger sets and shorter bounds.
"""

# %%
import matplotlib.pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmdls import ClinicalCox
from mmdls.datasets import make_nsclc_cohort
from mmdls.uncertainty import ConformalPredictor, coverage_table

X, y = make_nsclc_cohort(1500, n_slices=1, image_size=8, return_X_y=True, random_state=0)
train, test = X.index[:900], X.index[900:]
good = X.filter(regex="^pet_|diameter")
poor = X[["clinical_age"]]

tables, sets = {}, {}
for name, columns in (("PET and diameter", good), ("age alone", poor)):
    model = ConformalPredictor(
        make_pipeline(StandardScaler(), LogisticRegression()), confidence_level=0.9, random_state=0
    )
    model.fit(columns.loc[train], y.loc[train, ["stage"]])
    sets[name] = model.predict_sets(columns.loc[test])["stage"]
    tables[name] = coverage_table(model, columns.loc[test], y.loc[test, ["stage"]], by=X.loc[test, "centre"])

# %%
# The rate holds on average; within a centre it need not. The size of the sets says what a model knows.
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for k, (name, table) in enumerate(tables.items()):
    colour, places = ("#0072B2", "#D55E00")[k], [row - 0.25 * k for row in range(len(table))][::-1]
    ends = [table["coverage"] - table["low"], (table["high"] - table["coverage"]).clip(0)]
    left.errorbar(table["coverage"], places, xerr=ends, fmt="o", color=colour, label=name)
    sizes = sets[name].sum(axis=1).value_counts(normalize=True)
    right.bar(sizes.index + 0.35 * k - 0.17, sizes, width=0.33, color=colour)
left.axvline(0.9, color="black", linestyle=":")
left.set_yticks(places, table["group"])
left.set(xlabel="Share of sets that hold the true stage", xlim=(0.75, 1))
right.set(xlabel="Stages in a set", ylabel="Share of patients", xticks=[1, 2, 3])
fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)

# %%
# Months that nine in ten patients outlive:
clinical = X.filter(like="clinical_")
survival = ConformalPredictor(ClinicalCox(), confidence_level=0.9, random_state=0).fit(
    clinical.loc[train], y.loc[train, ["os_time", "os_event"]]
)
bounds = survival.predict_lower_bounds(clinical.loc[test])
print(bounds.describe().round(1))
coverage_table(survival, clinical.loc[test], y.loc[test, ["os_time", "os_event"]], by=X.loc[test, "centre"]).round(3)
