"""Losses of masks, by name. Where a mask is unknown, nothing is learned."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SegmentationLoss", "cross_entropy_loss", "dice_loss", "focal_loss", "tversky_loss"]


def dice_loss(logits: Tensor, mask: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice overlap of all pixels together, so that slices without the structure count as well.

    Parameters
    ----------
    logits, mask : Tensor of shape (N, H, W)
        The mask holds shares of a pixel, 0 to 1.
    smooth : float, default=1.0
        Pixels added to both overlap and size.

    References
    ----------
    .. [1] Milletari F, Navab N, Ahmadi S-A. V-Net: fully convolutional neural networks for volumetric medical image
       segmentation. 3DV, 2016.

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    >>> round(dice_loss(torch.zeros(1, 1, 4), mask, smooth=0).item(), 3)
    0.5
    """
    return tversky_loss(logits, mask, false_positives=0.5, smooth=smooth)


def tversky_loss(logits: Tensor, mask: Tensor, false_positives: float = 0.3, smooth: float = 1.0) -> Tensor:
    """One minus the soft Tversky index: Dice with unequal weights of false positives and false negatives.

    Parameters
    ----------
    logits, mask : Tensor of shape (N, H, W)
    false_positives : float, default=0.3
        Their weight; false negatives weigh one minus this, so that what is missed costs more.
    smooth : float, default=1.0
        As in :func:`dice_loss`.

    References
    ----------
    .. [1] Salehi SSM, Erdogmus D, Gholipour A. Tversky loss function for image segmentation using 3D fully
       convolutional deep networks. MLMI, 2017.
    """
    found = logits.float().sigmoid()
    overlap = (found * mask).sum()
    weighed = false_positives * found.sum() + (1 - false_positives) * mask.sum()
    return 1 - (2 * overlap + smooth) / (2 * weighed + smooth)


def cross_entropy_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean binary cross-entropy of all pixels.

    Parameters
    ----------
    logits, mask : Tensor of shape (N, H, W)
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), mask)


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that fades where the network is right already.

    Parameters
    ----------
    logits, mask : Tensor of shape (N, H, W)
    gamma : float, default=2.0
        0 is the cross-entropy.

    References
    ----------
    .. [1] Lin T-Y, Goyal P, Girshick R, He K, Dollar P. Focal loss for dense object detection. ICCV, 2017.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), mask, reduction="none")
    wrong = (logits.float().sigmoid() - mask).abs()
    return (wrong**gamma * entropy).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": dice_loss,
    "cross_entropy": cross_entropy_loss,
    "focal": focal_loss,
    "tversky": tversky_loss,
}


class SegmentationLoss(nn.Module):
    """Sum of named losses over the known masks, and over the levels of a network that has several.

    Parameters
    ----------
    names : str, default="dice+cross_entropy"
        ``"dice"``, ``"cross_entropy"``, ``"focal"`` or ``"tversky"``, joined by ``+``.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> import torch
    >>> loss = SegmentationLoss("dice+focal")
    >>> mask, known = torch.ones(2, 2, 8, 8), torch.tensor([[True, True], [True, False]])
    >>> bool(loss([50 * mask], mask, known) < 0.01)
    True
    """

    def __init__(self, names: str = "dice+cross_entropy"):
        super().__init__()
        self.names = [name.strip() for name in names.split("+")]
        unknown = [name for name in self.names if name not in LOSSES]
        if unknown:
            raise ValueError(f"loss must join names of {list(LOSSES)} by '+'; got {names!r}.")

    def forward(self, levels: list[Tensor], mask: Tensor, known: Tensor) -> Tensor:
        """Mean over structures of the weighted mean over levels.

        Parameters
        ----------
        levels : list of Tensor of shape (N, K, h, w)
            Logits of K structures, fine to coarse; each level counts half as much as the one before. Coarse ones are
            compared with the share of structure in each of their pixels.
        mask : Tensor of shape (N, K, H, W)
        known : Tensor of shape (N, K), bool
            Masks that are known.

        Returns
        -------
        Tensor of shape ()
        """
        total = torch.stack([logits.sum() for logits in levels]).sum() * 0.0
        weights = [0.5**level for level in range(len(levels))]
        structures = [k for k in range(known.shape[1]) if known[:, k].any()]
        for weight, logits in zip(weights, levels, strict=True):
            target = (
                mask
                if logits.shape[-2:] == mask.shape[-2:]
                else functional.adaptive_avg_pool2d(mask, (logits.shape[-2], logits.shape[-1]))
            )
            for k in structures:
                rows = known[:, k]
                for name in self.names:
                    share = weight / sum(weights) / len(structures)
                    total = total + share * LOSSES[name](logits[rows, k], target[rows, k])
        return total
