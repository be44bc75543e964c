import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from search.mask_slicing import copy_kept, slice_masked  # noqa: E402
from search.masks import attach_masks, binarise, norm_scores, norm_threshold, prefix_masks  # noqa: E402
from search.spaces.csnet.arch import CSNetArch  # noqa: E402
from search.spaces.csnet.space import CSNetSpace  # noqa: E402
from search.spaces.export import seeded_subnet  # noqa: E402
from search.spaces.groups import ChannelPlan, LayerChannels, MaskGroup  # noqa: E402
from targets.errors import UsageError  # noqa: E402
from tests.search.csnet_lists import X2_L  # noqa: E402

torch.set_num_threads(1)


class KeptNorm(nn.Module):
    """Layer norm over the last dimension, over kept channels only."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.bias = nn.Parameter(torch.randn(width))
        self.keep = None

    def forward(self, x):
        keep = torch.ones_like(self.weight) if self.keep is None else self.keep.to(x)
        mean = (x * keep).sum(-1, keepdim=True) / keep.sum()
        variance = ((x - mean).square() * keep).sum(-1, keepdim=True) / keep.sum()
        return ((x - mean) / (variance + 1e-5).sqrt() * self.weight + self.bias) * keep


class Mixture(nn.Module):
    """Every kind of layer: a concatenation, a grouped expansion, patches of tokens, norms, PReLU, fixed channels."""

    def __init__(self, a=4, b=6, c=5):
        super().__init__()
        self.first = nn.Conv2d(3, a, 3, padding=1)
        self.norm = nn.BatchNorm2d(a)
        self.act = nn.PReLU(a)
        self.other = nn.Conv2d(3, b, 1)
        self.join = nn.Conv2d(a + b + 2, c, 1, bias=False)
        self.join_norm = nn.BatchNorm2d(c)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(c, 3 * c, 3, padding=1, groups=c)
        self.expand_norm = nn.BatchNorm2d(3 * c)
        self.back = nn.Conv2d(3 * c, c, 1)
        self.token_norm = KeptNorm(4 * c)
        self.inner = nn.Linear(4 * c, b, bias=False)
        self.outer = nn.Linear(b, 4 * c)
        self.last = nn.Conv2d(c, 2, 1)

    def forward(self, x):
        pair = torch.cat([self.act(self.norm(self.first(x))), self.other(x), x[:, :2]], 1)
        x = self.relu(self.join_norm(self.join(pair)))
        x = self.back(self.expand_norm(self.expand(x))) + x
        tokens = nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)
        tokens = self.outer(self.inner(self.token_norm(tokens)))
        y = tokens.transpose(1, 2).unflatten(2, (x.shape[2] // 2, x.shape[3] // 2))
        return self.last(nn.functional.pixel_shuffle(y, 2))


def mixture_plan(a=4, b=6, c=5):
    groups = {
        "a": MaskGroup("a", a, 1, ("act",)),
        "b": MaskGroup("b", b, 2, ("other", "inner")),
        "c": MaskGroup("c", c, 1, ("relu", "expand_norm", "back", "outer")),
    }
    layers = {
        "first": LayerChannels((3,), ("a",)),
        "norm": LayerChannels((), ("a",)),
        "act": LayerChannels((), ("a",)),
        "other": LayerChannels((3,), ("b",)),
        "join": LayerChannels(("a", "b", 2), ("c",)),
        "join_norm": LayerChannels((), ("c",)),
        "expand": LayerChannels((), ("c",), repeat=3),
        "expand_norm": LayerChannels((), ("c",), repeat=3),
        "back": LayerChannels(("c",), ("c",), input_repeat=3),
        "token_norm": LayerChannels((), ("c",), repeat=4),
        "inner": LayerChannels(("c",), ("b",), input_repeat=4),
        "outer": LayerChannels(("b",), ("c",), repeat=4),
        "last": LayerChannels(("c",), (2,)),
    }
    return ChannelPlan(groups, layers)


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    network = Mixture().double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.bias.normal_()
                module.weight.uniform_(0.5, 1.5)
    return network


IMAGE = torch.randn(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_masked_equals_sliced_for_every_kind_of_layer(mixture):
    plan = mixture_plan()
    whole = mixture(IMAGE)
    masks = attach_masks(mixture, plan)
    assert torch.equal(mixture(IMAGE), whole)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        keep = binarise({name: torch.rand(g.width, generator=generator) for name, g in plan.groups.items()}, plan)
        masks.set_all(keep)
        small = Mixture(*(int(keep[name].sum()) for name in "abc")).double().eval()
        copy_kept(mixture, small, plan, keep)
        assert (mixture(IMAGE) - small(IMAGE)).abs().max() < 1e-12
        assert (small(IMAGE) - whole).abs().max() > 1e-3
    masks.remove()
    assert torch.equal(mixture(IMAGE), whole)
    assert mixture.token_norm.keep is None


@torch.no_grad()
def test_masks_follow_a_copy_of_the_network_and_work_in_train_mode(mixture):
    mixture.masks = attach_masks(mixture, mixture_plan())
    twin = copy.deepcopy(mixture)
    twin.masks.set_prefix({"c": 1})
    assert twin.token_norm.keep.sum() == 4
    assert mixture.token_norm.keep.sum() == 20
    assert not torch.allclose(twin(IMAGE), mixture(IMAGE))
    fresh = Mixture().double()
    fresh.load_state_dict(mixture.state_dict())
    assert torch.equal(fresh.eval()(IMAGE), mixture(IMAGE))
    seen = []
    mixture.back.register_forward_hook(lambda module, inputs, output: seen.append(output))
    mixture.masks["c"] = torch.tensor([1.0, 0, 1, 0, 1])
    mixture.train()(IMAGE)
    assert (seen[0].abs().amax((0, 2, 3)) > 0).tolist() == [True, False, True, False, True]


def test_gradients_reach_the_masks(mixture):
    masks = attach_masks(mixture, mixture_plan())
    scores = torch.full((5,), 0.6, requires_grad=True)
    masks["c"] = (scores > 0.5).float() + scores - scores.detach()  # straight through
    mixture(IMAGE).square().sum().backward()
    assert (scores.grad.abs() > 0).all()


def test_wrong_masks_are_refused(mixture):
    masks = attach_masks(mixture, mixture_plan())
    for wrong in (lambda: masks.set_prefix({"a": 5}), lambda: masks.set_prefix({"x": 1})):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(UsageError, match=r"mask of a has shape \(3,\)"):
        masks["a"] = torch.ones(3)
    with pytest.raises(UsageError, match="scores of a"):
        binarise({"a": torch.tensor([0.1, float("nan"), 1, 1])}, mixture_plan())


@pytest.mark.parametrize("layer", ["first", "expand_norm", "act"])
def test_a_layer_that_no_entry_covers_is_named(mixture, layer):
    plan = mixture_plan()
    del plan.layers[layer]
    with pytest.raises(UsageError, match=f"{layer} .* not in the channel plan"):
        copy_kept(mixture, Mixture(), plan, {})


def test_networks_that_do_not_fit_the_plan_are_named(mixture):
    with pytest.raises(UsageError, match=r"first\.weight has shape \(3, 3, 3, 3\)"):
        copy_kept(mixture, Mixture(3), mixture_plan(), {})
    with pytest.raises(UsageError, match=r"first\.weight has 4 channels along axis 0, the plan 7"):
        copy_kept(mixture, Mixture(), mixture_plan(7), {})


FAMILY = ChannelPlan(
    {
        "solid": MaskGroup("solid", 4, 2, ()),
        "left": MaskGroup("left", 3, 0, (), "pair"),
        "right": MaskGroup("right", 2, 0, (), "pair"),
    }
)


def kept(keep):
    return {name: mask.int().tolist() for name, mask in keep.items()}


def test_binarise_keeps_floors_and_families():
    low = {"solid": torch.tensor([0.1, 0.3, 0.2, 0.3]), "left": torch.zeros(3), "right": torch.tensor([0.1, 0.2])}
    assert kept(binarise(low, FAMILY)) == {"solid": [0, 1, 0, 1], "left": [0, 0, 0], "right": [0, 1]}
    high = {"solid": torch.tensor([0.5, 0.6, 0.7, 0.0]), "left": torch.tensor([0.0, 0.9, 0.0])}
    assert kept(binarise(high, FAMILY)) == {"solid": [0, 1, 1, 0], "left": [0, 1, 0], "right": [1, 1]}
    equal = {"solid": torch.zeros(4), "left": torch.zeros(3), "right": torch.zeros(2)}
    assert kept(binarise(equal, FAMILY)) == {"solid": [1, 1, 0, 0], "left": [1, 0, 0], "right": [0, 0]}


def test_norm_scores_take_the_largest_scale_of_the_norms_that_decide(mixture):
    with torch.no_grad():
        mixture.join_norm.weight.copy_(torch.tensor([1e-30, 0.2, -0.3, 0.0, 1e-21]))
        mixture.expand_norm.weight.zero_()
        mixture.expand_norm.weight[9] = -0.7  # the first of channel 3's three
    plan = mixture_plan()
    assert norm_scores(mixture, plan)["c"].tolist() == pytest.approx([1e-30, 0.2, 0.3, 0.7, 1e-21])
    keep = norm_threshold(mixture, plan)
    assert kept(keep) == {"a": [1] * 4, "b": [1] * 6, "c": [0, 1, 1, 1, 0]}
    plan.groups["c"] = MaskGroup("c", 5, 4, (), norms=("join_norm",))
    assert kept(norm_threshold(mixture, plan))["c"] == [1, 1, 1, 0, 1]  # the floor takes the best below the threshold


@torch.no_grad()
def calibrate(network, batch, generator):
    """Batch norm with statistics under the masks, so that a signal reaches the output whatever they drop."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.reset_running_stats()
            module.momentum = None
    network.train()(batch)
    return network.eval()


@torch.no_grad()
def pruned_alike(arch, states):
    """Largest difference of masked and sliced, float32 as it is, and float64 with statistics of the masked network."""
    space, generator = CSNetSpace(), torch.Generator().manual_seed(7)
    plan = space.channel_plan(arch)
    network = seeded_subnet(arch, (128, 128), seed=1)
    image = torch.randn(2, 3, 32, 32, generator=generator)
    masks = attach_masks(network, plan)
    single, double = 0.0, 0.0
    for index, state in enumerate(states(network, plan, generator)):
        masks.set_all(state)
        sliced = slice_masked(space, network, state)
        assert not sliced.training
        assert space_widths(sliced, space) == [count for keep in state.values() if (count := int(keep.sum()))]
        single = max(single, float((network(image) - sliced(image)).abs().max()))
        if index % 5 and states is random_states:
            continue
        exact = copy.deepcopy(network).double()  # with masks of its own
        calibrate(exact, image.double(), generator)
        expected = exact(image.double())
        assert expected.std() > 1e-3
        found = slice_masked(space, exact, state)(image.double())
        double = max(double, float((expected - found).abs().max() / expected.std()))
    return single, double


def space_widths(network, space):
    return [group.width for group in space.channel_plan(network.arch).groups.values()]


def random_states(network, plan, generator):
    for index in range(50):
        scores = {name: torch.rand(group.width, generator=generator) for name, group in plan.groups.items()}
        yield binarise(scores, plan, (0.2, 0.5, 0.8, 0.95)[index % 4])
    yield binarise(scores, plan, 2.0)  # all but the floors


def norm_states(network, plan, generator):
    norms = [m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and "dw" not in name]
    for share in (0.3, 1.0):
        for norm in norms:
            norm.weight[torch.rand(norm.num_features, generator=generator) < share] *= 1e-25
        yield norm_threshold(network, plan)


@pytest.mark.parametrize(
    ("arch", "states"),
    [(CSNetArch.fixed(0.5), random_states), (X2_L, norm_states), (CSNetArch.fixed(1, (1, 0)), norm_states)],
    ids=["random", "norms", "norms of one scale"],
)
def test_csnet_masked_equals_sliced(arch, states):
    single, double = pruned_alike(arch, states)
    assert single < 1e-6
    assert double < 1e-9


def test_a_group_that_would_vanish_stays_at_its_floor():
    space = CSNetSpace()
    plan = space.channel_plan(X2_L)
    gone = binarise({name: torch.zeros(group.width) for name, group in plan.groups.items()}, plan)
    counts = {name: int(keep.sum()) for name, keep in gone.items()}
    small = space.with_widths(X2_L, counts)
    space.validate(small)
    assert [sum(row) for row in small.dilated] == [1, 1, 1]
    assert {count for name, count in counts.items() if "dilated" not in name} == {1}


def test_a_channel_more_or_less_is_noticed():
    space, arch = CSNetSpace(), CSNetArch.fixed(0.3)
    plan = space.channel_plan(arch)
    network = seeded_subnet(arch, (128, 128), seed=2)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = attach_masks(network, plan)
    with torch.no_grad():
        whole = network(image)
        for name, group in plan.groups.items():
            masks.set_prefix({name: group.width - 1})
            assert (network(image) - whole).abs().max() > 1e-6, name
            masks.set_prefix({name: group.width})
        assert torch.equal(network(image), whole)
    assert prefix_masks(plan, {"stem.0": 1})["stem.0"].tolist() == [True, False, False]
