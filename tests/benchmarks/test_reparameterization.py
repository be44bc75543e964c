import numpy as np
import pytest
import torch

from benchmarks import reparameterization
from benchmarks.equivalence import _saliency
from search.spaces.registry import find_arch


def test_both_forms_of_csnet_end_in_a_saliency_map(tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(reparameterization, "export_network", lambda module, *_, **__: exported.append(module))
    reparameterization.files_of("csnet:smallest", (64, 64), {"onnx"}, tmp_path / "0")
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        branches, fused = (module(image) for module in exported)
    assert fused.max() - fused.min() > 1e-3
    assert (branches - fused).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "expected"), [("csnet-x1", 0.5), ("inas-tiny:smallest", 0), ("bisenetv2", 0)])
def test_the_sigmoid_that_training_lacks_is_added(name, expected):
    assert _saliency(np.zeros(1), find_arch(name)) == expected
