"""Convolutions of 3 x 3 on the processor that need fewer multiplications than the usual ones, and what follows them.

Stride 1, padding 1, single precision, channels in multiples of 16: by Winograd's minimal filtering [1]_ in tiles of
2 x 4 pixels, whose rounding errors are nearly those of usual convolutions. Two layers with ReLU and the mean over the
pixels, which is the encoder of the published MM-DLS, are computed in one pass whose maps never leave the processor's
cache. Group normalisation, the sum with a shortcut and ReLU are one operation, and so are the layers in front of the
blocks of a residual network.

The kernels are compiled when the package is installed, if a C++ compiler is found. Without them everything works, by
usual convolutions. :func:`info` says which way is taken. The environment variable ``MMDLS_KERNELS`` chooses one:
``plain`` switches the kernels off, ``avx2`` and ``avx512`` are theirs, and ``nnpack`` is torch's own NNPACK, which
needs no compiler, predicts faster than usual convolutions, and rounds up to 20 times as much.

References
----------
.. [1] Lavin A, Gray S. Fast algorithms for convolutional neural networks. CVPR, 2016.
"""

from mmdls.kernels._antialiased import antialiased_sums
from mmdls.kernels._chains import conv3x3, conv3x3_relu_chain, sums_in_one_pass
from mmdls.kernels._norms import group_norm, stem
from mmdls.kernels._ways import Info, info, using

__all__ = [
    "Info",
    "antialiased_sums",
    "conv3x3",
    "conv3x3_relu_chain",
    "group_norm",
    "info",
    "stem",
    "sums_in_one_pass",
    "using",
]
