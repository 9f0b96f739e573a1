"""Weights learned elsewhere, brought into the backbones."""

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["load_imagenet_weights"]


def load_imagenet_weights(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights of an ImageNet ResNet, under their usual names, into a ResNet backbone.

    A network whose first convolution sees another number of channels gets the mean over the colours, scaled so that
    equal channels give the same response. Scale and shift of batch normalisation go to group normalisation; running
    statistics and the classifier are left out.

    Parameters
    ----------
    backbone : ResNet10Backbone or ResNet18Backbone
        Or one with fewer stages.
    weights : dict of str to Tensor
        ``conv1.weight``, ``bn1.weight``, ``layer1.0.conv1.weight`` ...

    Raises
    ------
    ValueError
        If the backbone is no ResNet, or names or shapes do not fit.
    """
    own = backbone.state_dict()
    if "stem.0.weight" not in own:
        raise ValueError(
            f"ImageNet weights fit a ResNet backbone ('resnet10', 'resnet18'); got {type(backbone).__name__}."
        )
    found = {}
    for name, value in own.items():
        theirs = _imagenet_name(name)
        if theirs not in weights:
            raise ValueError(
                f"the weights lack {theirs!r}, which the backbone needs; they have {list(weights)[:5]} ... Choose the "
                "file of a ResNet of the same depth."
            )
        given = weights[theirs]
        if name == "stem.0.weight" and given.ndim == 4 and given.shape[1] != value.shape[1]:
            channels = value.shape[1]
            given = given.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * given.shape[1] / channels
        if given.shape != value.shape:
            raise ValueError(
                f"{theirs!r} has shape {tuple(given.shape)} in the weights and {tuple(value.shape)} in the backbone; "
                "ImageNet's ResNets have width=64."
            )
        found[name] = given
    backbone.load_state_dict(found)


def _imagenet_name(name: str) -> str:
    """The usual name of a parameter of a ResNet backbone."""
    part, *rest = name.split(".")
    if part == "stem":
        return f"{'conv1' if rest[0] == '0' else 'bn1'}.{rest[1]}"
    stage, block, *inner = rest
    layer = f"layer{int(stage) + 1}.{block}." + ".".join(inner)
    return layer.replace("norm", "bn").replace("shortcut", "downsample")
