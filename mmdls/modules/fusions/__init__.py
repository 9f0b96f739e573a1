"""Fusions: the embeddings of several modalities to one.

The contract: built with the widths of the modalities, ``forward(embeddings {name: (B, D_name)}, present (B, M)) ->
(B, out_features)``; the columns of ``present`` follow the order of ``widths``, and what stands in an absent modality's
embedding never changes the result, which is finite for any subset of modalities, none included.

A fusion with ``reads_tokens = True`` takes a third argument, ``tokens {name: (items (B, S, D_name), mask (B, S))}``:
the item embeddings of the modalities that are bags, such as slices, each padded to its own length. A fusion that weighs
modalities also has ``attention(embeddings, present) -> (B, M)``: weights that sum to 1 over present modalities.
"""

from mmdls.modules.fusions._additive import AdditiveFusion, GatedFusion
from mmdls.modules.fusions._attention import BottleneckFusion, CrossAttentionFusion
from mmdls.modules.fusions._interactions import FilmFusion, LowRankFusion
from mmdls.modules.fusions._perceptrons import ConcatFusion, LateFusion

__all__ = [
    "AdditiveFusion",
    "BottleneckFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "FilmFusion",
    "GatedFusion",
    "LateFusion",
    "LowRankFusion",
]
