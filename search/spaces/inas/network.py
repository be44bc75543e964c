"""The iNAS network for torch: one class for supernet and subnet (Gu et al., ICCV 2021).

A network is made for the biggest architecture it can run. A subnet's is its own; a supernet's is the space's biggest,
and ``activate`` chooses the architecture that ``forward`` runs with the leading channels, the first layers of each
stage, the centres of the kernels and a subset of the connections.

Module paths, in training form and after ``search.reparameterize``: ``stem``, ``stages.<stage>.<layer>``,
``transport.<level>.from<level>``, ``transport.<level>.fuse``, ``decoder.<level>.from<level>``,
``decoder.<level>.fuse``, ``head`` (of level 0) and, in training form only, ``auxiliary.<level>``. Level 0 is the
finest, at half the input size; a connection from a level to itself is no module.
"""

from __future__ import annotations

from search.spaces.arch import Arch
from search.spaces.inas.arch import LEVELS, STAGES, INASArch
from search.spaces.inas.parts import DecoderFuse, Level, MBConv, Prediction, Stage, TransportFuse
from search.spaces.inas.space import INASSpace
from search.spaces.sliced import ConvNorm
from search.spaces.slicing import leading, not_a_supernet
from search.torch_or_stub import nn, torch
from targets.errors import UsageError


def _tapped(arch: INASArch) -> tuple[int, ...]:
    """Channels of every level."""
    return tuple(arch.widths[index][-1] for index, stage in enumerate(STAGES) if stage.level is not None)


class INASNet(nn.Module):
    """The network in training form.

    Args:
        arch: The biggest architecture it can run.
        supernet: Whether it will run smaller ones too.

    Attributes:
        arch: The architecture that ``forward`` runs.
    """

    def __init__(self, arch: INASArch, *, supernet: bool = False) -> None:
        super().__init__()
        self.arch = arch
        self.supernet = supernet
        self.stem = ConvNorm(3, arch.stem, 3, 2, act=True)
        self.stages = nn.ModuleList()
        width = arch.stem
        for choices, widths, kernels in zip(STAGES, arch.widths, arch.kernels, strict=True):
            layers = []
            for index, (out, sizes) in enumerate(zip(widths, kernels, strict=True)):
                stride = choices.stride if index == 0 else 1
                layers.append(MBConv(width, out, sizes, choices.expand, stride, supernet=supernet))
                width = out
            self.stages.append(Stage(*layers))
        taps = _tapped(arch)
        self.transport = nn.ModuleList(
            Level(level, arch.transport[level], taps, TransportFuse(taps[level], kernels), act=False)
            for level, kernels in enumerate(arch.transport_kernels)
        )
        self.decoder = nn.ModuleList(
            Level(level, arch.decoder[level], taps, DecoderFuse(taps[level], kernels), act=True)
            for level, kernels in enumerate(arch.decoder_kernels)
        )
        self.head = Prediction(taps[0], arch.classes, 0)
        auxiliary = range(1, LEVELS) if arch.classes == 1 else (2,)
        self.auxiliary = nn.ModuleDict({str(i): Prediction(taps[i], arch.classes, i) for i in auxiliary})

    def forward(self, image: torch.Tensor, all_heads: bool = False) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map a normalised RGB image (N, 3, H, W) to (N, classes, H, W); H and W are multiples of 32.

        Args:
            image: The image.
            all_heads: Whether to give a tuple of the main output and the auxiliary ones, finest level first.

        Returns:
            A saliency map in 0 to 1, or logits where there are more classes than one.
        """
        maps = []
        x = self.stem(image)
        for stage, choices in zip(self.stages, STAGES, strict=True):
            x = stage(x)
            if choices.level is not None:
                maps.append(x)
        maps = [level(maps) for level in self.transport]
        for index in reversed(range(LEVELS)):
            maps[index] = self.decoder[index](maps)
        main: torch.Tensor = self.head(maps[0])
        if not all_heads:
            return main
        return main, *(head(maps[int(level)]) for level, head in self.auxiliary.items())

    def holds(self, arch: INASArch) -> bool:
        """Whether this is the supernet of an architecture's space and classes."""
        return self.supernet and _kind(arch) == _kind(self.arch)

    def activate(self, arch: INASArch) -> None:
        """Choose the architecture that ``forward`` runs.

        Raises:
            UsageError: If this is no supernet of the architecture's space and classes, or the space does not hold it.
        """
        if not self.holds(arch):
            what = f"{'supernet' if self.supernet else 'subnet'} of {_kind(self.arch)}"
            raise UsageError(
                f"a {what} cannot run another architecture of {_kind(arch)}",
                "Build the supernet of the architecture's own space and classes.",
            )
        INASSpace(arch.space, arch.classes).validate(arch)
        self.arch = arch
        self.stem.activate(3, arch.stem)
        width = arch.stem
        for stage, widths, kernels in zip(self.stages, arch.widths, arch.kernels, strict=True):
            assert isinstance(stage, Stage)
            stage.depth = len(widths)
            for layer, out, sizes in zip(stage, widths, kernels, strict=False):
                assert isinstance(layer, MBConv)
                layer.activate(width, out, sizes)
                width = out
        taps = _tapped(arch)
        for levels, connections, sizes_of in (
            (self.transport, arch.transport, arch.transport_kernels),
            (self.decoder, arch.decoder, arch.decoder_kernels),
        ):
            for index, level in enumerate(levels):
                assert isinstance(level, Level)
                level.activate(connections[index], taps, sizes_of[index])
        self.head.activate(taps[0])
        for name, head in self.auxiliary.items():
            assert isinstance(head, Prediction)
            head.activate(taps[int(name)])

    def strip(self) -> None:
        """Drop the auxiliary heads."""
        self.auxiliary = nn.ModuleDict()


def build_supernet(space: INASSpace, seed: int = 0) -> INASNet:
    """The weight-sharing network of a space, in training form; it runs the biggest architecture at first.

    Args:
        space: The space.
        seed: Seed of the weights; torch's global generator stays as it was.
    """
    return _seeded(space.biggest(), seed, supernet=True)


def build_subnet(arch: INASArch, seed: int = 0) -> INASNet:
    """One architecture's network in training form, ready to train.

    Args:
        arch: The architecture.
        seed: Seed of the weights; torch's global generator stays as it was.
    """
    return _seeded(arch, seed, supernet=False)


def _seeded(arch: INASArch, seed: int, *, supernet: bool) -> INASNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return INASNet(arch, supernet=supernet)


def slice_supernet(supernet: nn.Module, arch: INASArch) -> INASNet:
    """The subnet with the supernet's weights; the supernet is left as it is.

    Args:
        supernet: What ``build_supernet`` made.
        arch: An architecture of its space.

    Returns:
        The subnet in training form, in the supernet's mode, on its device and in its dtype.

    Raises:
        UsageError: If the network is no supernet of the architecture's space and classes, or the space does not hold
            it.
    """
    if not isinstance(supernet, INASNet) or not supernet.holds(arch):
        raise not_a_supernet(supernet, f"it is no supernet of {_kind(arch)}")
    INASSpace(arch.space, arch.classes).validate(arch)
    with torch.device("meta"):  # shapes only: no weights are drawn
        subnet = INASNet(arch)
    whole = supernet.state_dict()
    parts = {name: leading(whole[name], mine.shape).clone() for name, mine in subnet.state_dict().items()}
    subnet.load_state_dict(parts, assign=True)
    return subnet.train(supernet.training)


def _kind(arch: Arch) -> str:
    """An architecture's space and number of output maps."""
    return f"{arch.space}-c{getattr(arch, 'classes', 1)}"
