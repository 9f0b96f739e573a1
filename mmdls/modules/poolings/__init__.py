"""Poolings: a patient's bag of slice embeddings to one embedding.

The contract: ``forward(slices (B, S, D), mask (B, S)) -> (B, D)``; True in the mask marks a real slice, what stands at
padded places never changes the result, nor does the order of slices, and a patient without slices gets zeros. A pooling
that weighs slices also has ``attention(slices, mask) -> (B, S)``: non-negative weights that sum to 1 over the real
slices.
"""

from mmdls.modules.poolings._attention import GatedAttentionPooling, SelfAttentionPooling
from mmdls.modules.poolings._set_transformer import SetTransformerPooling
from mmdls.modules.poolings._simple import MaxPooling, MeanPooling, TopKPooling

__all__ = [
    "GatedAttentionPooling",
    "MaxPooling",
    "MeanPooling",
    "SelfAttentionPooling",
    "SetTransformerPooling",
    "TopKPooling",
]
