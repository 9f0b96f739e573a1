"""The contract every registered part keeps, as checks that plug-in authors can run on their own.

Each check raises ``AssertionError`` with what was broken. ``check_part("backbones", "my_backbone")`` runs the checks of
one registered part, whatever its kind; the library's own tests run it over every registered name.
"""

from mmdls.testing._estimators import check_estimator
from mmdls.testing._parts import (
    all_parts,
    check_backbone,
    check_fusion,
    check_part,
    check_pooling,
    check_segmentation_net,
    check_survival_head,
)

__all__ = [
    "all_parts",
    "check_backbone",
    "check_estimator",
    "check_fusion",
    "check_part",
    "check_pooling",
    "check_segmentation_net",
    "check_survival_head",
]
