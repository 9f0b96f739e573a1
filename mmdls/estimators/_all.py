"""All estimators and encoders, imported, so that their registries list them."""

from mmdls.estimators import *  # noqa: F403
