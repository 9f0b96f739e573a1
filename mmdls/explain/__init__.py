"""What a model's answers rest on: modalities, columns, places in an image, and the examination that would help most.

Nothing here is causal. An importance says what a model uses, given what else it reads.
"""

from mmdls.explain._image import ImageExplanation, explain_image
from mmdls.explain._importance import ModalityImportance, modality_importance
from mmdls.explain._next_exam import which_exam_next
from mmdls.explain._permutation import feature_importance

__all__ = [
    "ImageExplanation",
    "ModalityImportance",
    "explain_image",
    "feature_importance",
    "modality_importance",
    "which_exam_next",
]
