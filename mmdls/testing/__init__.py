"""The contracts of registered parts, as checks that authors of plug-ins can run.

Each check raises ``AssertionError`` with what was broken. ``check_part("backbones", "my_backbone")`` runs the checks of
one registered part, whatever its kind; the library's own tests run it over every registered name. ``small_study`` gives
any estimator a small cohort for each form of outcome that it learns, for tests of what it is used for afterwards.
"""

from mmdls.testing._encoders import check_encoder
from mmdls.testing._estimators import check_estimator
from mmdls.testing._heads import (
    check_class_head,
    check_competing_risks_head,
    check_regression_head,
    check_survival_head,
)
from mmdls.testing._models import check_model
from mmdls.testing._parts import (
    all_parts,
    check_augmentation,
    check_backbone,
    check_fusion,
    check_part,
    check_pooling,
    check_segmentation_net,
    check_task_weights,
    check_volume_backbone,
)
from mmdls.testing._studies import outcome_forms, small_study
from mmdls.testing._tasks import check_task

__all__ = [
    "all_parts",
    "check_augmentation",
    "check_backbone",
    "check_class_head",
    "check_competing_risks_head",
    "check_encoder",
    "check_estimator",
    "check_fusion",
    "check_model",
    "check_part",
    "check_pooling",
    "check_regression_head",
    "check_segmentation_net",
    "check_survival_head",
    "check_task",
    "check_task_weights",
    "check_volume_backbone",
    "outcome_forms",
    "small_study",
]
