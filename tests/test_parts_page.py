"""docs/parts.md lists every part of the library; ``python -m tests.test_parts_page`` writes it again."""

from pathlib import Path

from mmdls import registry

PAGE = Path(__file__).parents[1] / "docs" / "parts.md"
KINDS = (
    "backbones",
    "volume_backbones",
    "poolings",
    "augmentations",
    "fusions",
    "nominal_heads",
    "ordinal_heads",
    "survival_heads",
    "competing_risks_heads",
    "regression_heads",
    "segmentation_nets",
    "task_weights",
    "encoders",
    "tasks",
)
HEAD = """# Parts

Every part of a network is chosen by its name, as a class, or with parameters: `Part("gated", dropout=0.3)`. Formulas,
sources and parameters stand in the docstring of each: `help(mmdls.registry.fusions["gated"])`. A search tries all parts
of a slot but those marked with *, and of each the parameters named here. Backbones, of images and of volumes, are also
the networks of MONAI, by `"monai:<Name>"`; `SliceEncoder(weights=...)` and `VolumeEncoder(weights=...)` start one from
weights of a file: safetensors, or a state dict of `torch.save`, with the names of torchvision, RadImageNet or
MedicalNet; `weights_origin_` of the fitted encoder keeps path, hash, and the names that were used and unused.
`coherent` needs two endpoints, named by `Part("coherent", earlier="dfs", later="os")`; its curves never cross. That
costs little: in eight simulated cohorts (400 patients with tables, 700 new ones) its integrated Brier score was .0015
[-.0004, .0034] above that of `cox` in DFS and .0019 [-.0006, .0044] in OS, and its C-index .005 [.003, .008] and .005
[-.001, .011] below. How to add one: [architecture.md](architecture.md), "Adding a part".

## Volumes

`VolumeEncoder` reads a scan as one volume, for a three-dimensional network: `MMDLS(image_encoder="volumes")`, or
`VolumeEncoder(volume_size=(32, 96, 96), scan=ScanView(crop=(160, 120, 120), ...))`. Kernels and strides follow the
sides of the voxels: thick slices are not mixed before the pixels have been halved to about their thickness. The sides
are measured on training scans, or given as `spacing=(5, 1, 1)`.

## Foundation models

`FrozenFeatures` is an image encoder around any network or function from images to vectors, such as a foundation model
for CT. The model itself does not train and sees each patient once, whatever number of folds, trials and fits follows:

```python
from mmdls import MMDLS, FrozenFeatures, SliceEncoder
from torch import nn

network = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten())  # in its place the foundation model, with its weights
encoder = FrozenFeatures(
    network,  # images (k, 3, 224, 224), from 0 to 1 -> vectors (k, D), or maps
    images=SliceEncoder(image_size=224, max_slices=32),  # how slices are read
    n_channels=3,
    memory="features",  # a folder, for other processes and later days
)
model = MMDLS(image_encoder=encoder)
```

Features are found again by the contents of image and mask, the settings of reading, and the weights of the network,
also of one inside of a function. A function may do more than its networks say, so in a folder it needs
`model_name="<name and version>"`. `model_origin_` of the fitted encoder keeps name and hash. A saved model holds the
weights of the network, whose class must be registered (`mmdls.registry.backbones.register("my_network")`); a function
cannot be saved.
"""


def page() -> str:
    """The page, from the registries."""
    lines = [HEAD]
    for kind in KINDS:
        parts = getattr(registry, kind)
        lines += [f"## `{kind}`", "", "| name | what it is | searched parameters |", "|---|---|---|"]
        for name in parts:
            part = parts[name]
            if not part.__module__.startswith("mmdls."):
                continue
            about = part.__doc__.strip().partition("\n\n")[0].replace("\n", " ").replace("|", r"\|").replace("``", "`")
            searched = ", ".join(f"`{key}`" for key in getattr(part, "search_space", dict)())
            star = "" if getattr(part, "searched", True) else " *"
            lines.append(f"| `{name}`{star} | {' '.join(about.split())} | {searched} |")
        lines.append("")
    return "\n".join(lines)


def test_the_page_lists_every_part():
    assert PAGE.read_text() == page(), "write the page again: python -m tests.test_parts_page"


if __name__ == "__main__":
    PAGE.write_text(page())
