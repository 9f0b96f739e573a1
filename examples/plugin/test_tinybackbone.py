from mmdls_tinybackbone import TinyBackbone

from mmdls.registry import backbones
from mmdls.testing import check_backbone


def test_the_backbone_keeps_the_contract():
    check_backbone(TinyBackbone)


def test_mmdls_finds_it_by_name():
    assert backbones["tiny"] is TinyBackbone
