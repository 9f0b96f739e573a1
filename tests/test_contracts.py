"""Every registered part keeps its contract; being registered is enough to be tested here."""

import pytest

from mmdls.registry import estimators
from mmdls.testing import all_parts, check_part


@pytest.mark.parametrize(("kind", "name"), list(all_parts()))
def test_contract(kind, name):
    check_part(kind, name)


def test_the_registries_hold_what_is_promised():
    assert {"mmdls", "multimodal_classifier", "multimodal_survival", "slice_encoder", "tabular_encoder"} <= set(
        estimators
    )
    assert {"clinical_cox", "radiomics_cox", "coxnet", "survival_forest", "survival_boosting"} <= set(estimators)
