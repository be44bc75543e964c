import pytest
import torch
from torch import nn

from search.spaces.slicing import copy_leading, leading
from targets.errors import UsageError


def test_leading_channels_and_the_middle_of_kernels():
    wide = torch.arange(4 * 3 * 5 * 5).reshape(4, 3, 5, 5)
    part = leading(wide, torch.Size((2, 3, 3, 1)))
    assert torch.equal(part, wide[:2, :3, 1:4, 2:3])
    assert part.data_ptr() >= wide.data_ptr()
    subnet = copy_leading(nn.Conv2d(3, 4, 5).double(), nn.Conv2d(2, 3, 3))
    assert subnet.weight.dtype == torch.float64


@pytest.mark.parametrize("supernet", [nn.Identity(), nn.Conv2d(3, 2, 3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)])
def test_a_network_that_lacks_weights_is_refused_and_nothing_is_copied(supernet):
    subnet = nn.Conv2d(3, 3, 3)
    before = subnet.weight.detach().clone()
    with pytest.raises(UsageError, match=r"cannot slice from this network \(\w+\): weight of shape \(3, 3, 3, 3\)"):
        copy_leading(supernet, subnet)
    assert torch.equal(subnet.weight, before)
