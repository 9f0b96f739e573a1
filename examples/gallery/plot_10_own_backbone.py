"""
A backbone of your own in twenty lines
======================================

A class with ``forward`` and ``out_channels`` is a backbone: it is checked, trained, searched by Optuna, saved and
loaded.
"""

# %%
# The class
# ---------
# Maps from fine to coarse; no batch normalisation, since a patient's answer must not depend on other patients.
import matplotlib.pyplot as plt
from optuna.distributions import CategoricalDistribution
from torch import nn

import mmdls
from mmdls import MMDLS, OptunaSearch, SliceEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.registry import backbones
from mmdls.testing import check_backbone


@backbones.register("strided")
class StridedBackbone(nn.Module):
    """Three strided convolutions.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=8
    """

    def __init__(self, in_channels=1, width=8):
        super().__init__()
        self.out_channels = [width, 2 * width, 4 * width]
        channels = [in_channels, *self.out_channels]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(1, b), nn.GELU())
            for a, b in zip(channels, self.out_channels, strict=False)
        )

    @staticmethod
    def search_space():
        """Widths."""
        return {"width": CategoricalDistribution([4, 8])}

    def forward(self, image):
        """Image (N, C, H, W) -> maps at 1/2, 1/4 and 1/8 of its size."""
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps


check_backbone(StridedBackbone)

# %%
# Searched
# --------
# By its name it stands beside the backbones of the library.
X, y = make_nsclc_cohort(150, n_slices=2, image_size=24, return_X_y=True, random_state=0)
X, y = X[["lesion_image", "clinical_age", "clinical_diameter"]], y[["os_time", "os_event"]]
model = MMDLS(
    image_encoder=SliceEncoder(backbone="strided"), n_members=1, trainer=Trainer(max_epochs=8), random_state=0
)
space = {
    "image_encoder__backbone": CategoricalDistribution(["strided", "antialiased"]),
    "image_encoder__pooling": CategoricalDistribution(["mean", "max"]),
}
search = OptunaSearch(model, space, cv=2, n_trials=5, random_state=0).fit(X, y)
trials = search.study_.trials_dataframe()

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
names = [
    f"{trial.params['image_encoder__backbone']}, {trial.params['image_encoder__pooling']}"
    for trial in search.study_.trials
]
ax.scatter([trial.value for trial in search.study_.trials], names, color="#0072B2")
ax.set(xlabel="Harrell's C, mean over two folds")
ax.grid(axis="x", color="0.9")

# %%
# Saved and loaded
# ----------------
# By the name under which it is registered; the file holds weights, never code.
mmdls.save(search.best_estimator_, "own.mmdls")
mmdls.load("own.mmdls").predict(X[:3])
