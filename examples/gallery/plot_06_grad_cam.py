"""
Where does the network look?
============================

Heat over the slices of a patient, by HiResCAM, a Grad-CAM weighed pixel by pixel, and by integrated gradients. A map is
no proof: it says where, not why.
"""

# %%
from mmdls import MMDLS, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.explain import explain_image

X, y = make_nsclc_cohort(400, n_slices=4, image_size=32, return_X_y=True, random_state=0)
X, y = X[["lesion_image", "clinical_age"]], y[["os_time", "os_event"]]
model = MMDLS(n_members=1, trainer=Trainer(max_epochs=30), random_state=0).fit(X[:350], y[:350])

# %%
# The patient with the highest risk among those who were not learned from.
riskiest = model.predict(X[350:])["os"].idxmax()
explained = explain_image(model, X.loc[[riskiest]], "os", image="lesion")
explained.plot(n_slices=4)

# %%
# Integrated gradients tell for single pixels what raises the risk (red) and what lowers it (blue).
explain_image(model, X.loc[[riskiest]], "os", image="lesion", method="integrated_gradients").plot(n_slices=4)
