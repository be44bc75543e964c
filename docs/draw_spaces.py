"""Draw every search space from its own data into docs/pictures: ``python docs/draw_spaces.py [FOLDER]``."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from search.spaces.csnet.arch import DEPTHS, CSNetArch
from search.spaces.csnet.blocks import DILATIONS
from search.spaces.inas.arch import LEVELS, STAGES, STEM_WIDTHS, INASArch
from search.spaces.registry import find_space
from search.spaces.rtseg.arch import RTSegArch

WIDTH, HEIGHT = 1.7, 0.62
FIXED, CHOSEN, TRAINING = "#dfe6ee", "#cfe8cf", "#f3e3c3"


@dataclass(frozen=True)
class Box:
    """One part of a network.

    Attributes:
        x: Column.
        level: Row; log2 of the input size over the map's size where the drawing has scales.
        text: What it is and what may be chosen.
        colour: ``FIXED``, ``CHOSEN`` (something is searched) or ``TRAINING`` (not deployed).
    """

    x: float
    level: float
    text: str
    colour: str = FIXED


@dataclass
class Drawing:
    """Boxes by name and the arrows between them.

    Attributes:
        title: Heading.
        scales: Whether rows are map sizes.
        boxes: Boxes by name.
        arrows: From, to, and whether the connection is a choice.
    """

    title: str
    scales: bool = True
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[tuple[str, str, bool]] = field(default_factory=list)

    def chain(self, names: Sequence[str]) -> None:
        """Connect boxes one after the other."""
        self.arrows += [(a, b, False) for a, b in itertools.pairwise(names)]


def span(values: Sequence[int]) -> str:
    """``40-48`` for several values, ``16`` for one."""
    return f"{min(values)}-{max(values)}" if len(set(values)) > 1 else str(values[0])


def inas() -> Drawing:
    """Backbone stages, then transport and decoder levels with all the connections there can be."""
    space = find_space("inas")
    drawing = Drawing(f"iNAS: {space.count():.3g} architectures")
    drawing.boxes["stem"] = Box(-0.97, 1, f"stem 3x3\n{span(STEM_WIDTHS)}", CHOSEN)
    names, level = ["stem"], 1
    taps: dict[int, str] = {}
    for number, stage in enumerate(STAGES, 1):
        level += stage.stride - 1
        name = f"stage {number}"
        kernels = f"k in {{{','.join(map(str, stage.kernels))}}}" if len(stage.kernels) > 1 else "k 3"
        text = f"{name}: {span(stage.depths)} x MBConv{stage.expand}\n{span(stage.widths)}, {kernels}"
        drawing.boxes[name] = Box(0.97 * (2 * number - level), level, text, CHOSEN)
        names.append(name)
        if stage.level is not None:
            taps[stage.level] = name
    drawing.chain(names)
    biggest: INASArch = space.biggest()
    for own in range(LEVELS):
        drawing.boxes[f"t{own}"] = Box(11.6, own + 1, f"transport {own}\n2 x SMSU", CHOSEN)
        drawing.boxes[f"d{own}"] = Box(13.8, own + 1, f"decoder {own}\nSMSU", CHOSEN)
        drawing.boxes[f"p{own}"] = Box(16.5, own + 1, "prediction", FIXED if own == 0 else TRAINING)
        drawing.arrows += [(taps[other], f"t{own}", other != own) for other in biggest.transport[own]]
        for other in biggest.decoder[own]:
            source = f"t{own}" if other == own else f"d{other}"
            drawing.arrows.append((source, f"d{own}", other > own + 1))
        drawing.arrows.append((f"d{own}", f"p{own}", False))
    return drawing


def rtseg() -> Drawing:
    """Detail and semantic branch, mixed blocks, aggregation and head."""
    space = find_space("rtseg")
    arch: RTSegArch = space.biggest()
    title = "RTSeg: widths by mask group (up to those shown), a path for every mixed block"
    drawing = Drawing(title, scales=False)
    detail = []
    for number, widths in enumerate(arch.detail, 1):
        name = f"detail {number}"
        text = f"{name}, at 1/{2**number}\n{len(widths)} x conv 3x3, {widths[-1]}"
        drawing.boxes[name] = Box(1.95 * (number - 1), 0, text, CHOSEN)
        detail.append(name)
    drawing.chain(detail)
    drawing.boxes["stem"] = Box(0, 1, f"stem, at 1/4\n{arch.stem.fuse}", CHOSEN)
    semantic = ["stem"]
    x = 0.0
    for number, stage in enumerate(arch.stages, 3):
        x += 1.95
        text = f"down LIR, at 1/{2**number}\ntrunk {stage.trunk}"
        drawing.boxes[f"down {number}"] = Box(x, number - 2, text, CHOSEN)
        semantic.append(f"down {number}")
        for index in range(len(stage.blocks)):
            x += 1.95
            name = f"block {number}.{index}"
            drawing.boxes[name] = Box(x, number - 2, "mixed block\nskip | LIR | MHSA", CHOSEN)
            semantic.append(name)
        drawing.boxes[f"aux {number}"] = Box(x, number - 1.15, "auxiliary head", TRAINING)
        drawing.arrows.append((semantic[-1], f"aux {number}", False))
    x += 1.95
    drawing.boxes["aux 2"] = Box(0, 1.85, "auxiliary head", TRAINING)
    drawing.arrows.append(("stem", "aux 2", False))
    drawing.boxes["context"] = Box(x, 3, f"context, at 1/32\n{arch.stages[-1].trunk}", CHOSEN)
    drawing.boxes["bga"] = Box(x, 0, f"BGA, at 1/8\n{arch.bga}, {arch.bga_out}", CHOSEN)
    drawing.boxes["head"] = Box(x + 1.95, 0, f"head 3x3\n{arch.head}", CHOSEN)
    drawing.chain([*semantic, "context", "bga", "head"])
    drawing.arrows.append((detail[-1], "bga", False))
    return drawing


def csnet() -> Drawing:
    """Stages of ILBlocks on two scales and the CSF head."""
    arch = CSNetArch.fixed(2)
    drawing = Drawing("CSNet: a width for every block and scale (up to those of x2, shown)")
    drawing.boxes["stem"] = Box(0, 0, f"stem ILBlock\n{list(arch.stem)}", CHOSEN)
    names = ["stem"]
    for level, stage in enumerate(DEPTHS):
        widths = getattr(arch, stage)
        text = f"{stage}: {len(widths)} x ILBlock\n{list(widths[0])} ... {list(widths[-1])}"
        drawing.boxes[stage] = Box(1.9 * (level + 1), level, text, CHOSEN)
        names.append(stage)
    drawing.chain(names)
    parts = {
        "reduce": f"gOctConv 1x1\n{list(arch.csf_mid)}",
        "dilated": f"3x3, dilation {', '.join(map(str, DILATIONS))}\n{list(arch.csf_dilated)}",
        "fuse": f"gOctConv 1x1\n{arch.csf_out}",
        "head": "1x1, resize\nsigmoid",
    }
    for index, (name, text) in enumerate(parts.items()):
        drawing.boxes[name] = Box(1.9 * (5 + 1.15 * index), 1, text, FIXED if name == "head" else CHOSEN)
    drawing.chain(list(parts))
    drawing.arrows += [(stage, "reduce", False) for stage in ("stage2", "stage3", "stage4")]
    return drawing


def draw(drawing: Drawing, path: Path) -> None:
    """Write one drawing as SVG; the same drawing gives the same bytes."""
    mpl.rcParams.update({"svg.hashsalt": "spaces", "svg.fonttype": "none", "font.family": "sans-serif"})
    columns = [box.x for box in drawing.boxes.values()]
    rows = [box.level for box in drawing.boxes.values()]
    figure = Figure(figsize=(0.85 * (max(columns) - min(columns) + 2.4), 1.15 * (max(rows) - min(rows) + 1.9)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(min(columns) - 1.6, max(columns) + 1.1)
    axes.set_ylim(max(rows) + 0.7, min(rows) - 1.0)
    for level in sorted({round(row) for row in rows}) if drawing.scales else ():
        axes.text(min(columns) - 1.5, level, f"1/{2**level}", va="center", fontsize=8, color="#777777")
    for name, other, choice in drawing.arrows:
        a, b = drawing.boxes[name], drawing.boxes[other]
        ends = ((a.x + WIDTH / 2, a.level), (b.x - WIDTH / 2, b.level))
        if abs(a.x - b.x) < WIDTH:  # one above the other
            side = 1 if b.level > a.level else -1
            ends = ((a.x, a.level + side * HEIGHT / 2), (b.x, b.level - side * HEIGHT / 2))
        bend = "arc3"
        if abs(a.x - b.x) < WIDTH and abs(a.level - b.level) > 1.5:  # past the boxes between
            ends, bend = ((a.x + WIDTH / 2, a.level), (b.x + WIDTH / 2, b.level)), "arc3,rad=0.12"
        style = {"linestyle": "--", "color": "#9bb79b"} if choice else {"color": "#555555"}
        axes.add_patch(
            FancyArrowPatch(*ends, arrowstyle="-|>", connectionstyle=bend, mutation_scale=7, linewidth=0.9, **style)
        )
    for box in drawing.boxes.values():
        corner = (box.x - WIDTH / 2, box.level - HEIGHT / 2)
        shape = FancyBboxPatch(
            corner, WIDTH, HEIGHT, boxstyle="round,pad=0.01,rounding_size=0.08", facecolor=box.colour, linewidth=0.6
        )
        axes.add_patch(shape)
        axes.text(box.x, box.level, box.text, ha="center", va="center", fontsize=6.2)
    legend = "green: searched   grey: fixed   yellow: training only   dashed: a connection that may be left out"
    axes.text(min(columns) - 1.5, min(rows) - 0.8, drawing.title, fontsize=10, va="center", weight="bold")
    axes.text(min(columns) - 1.5, min(rows) - 0.5, legend, fontsize=7, va="center", color="#555555")
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


DRAWINGS: dict[str, Callable[[], Drawing]] = {"inas": inas, "rtseg": rtseg, "csnet": csnet}


def main(arguments: Sequence[str]) -> None:
    """Write one picture a space."""
    folder = Path(arguments[0]) if arguments else Path(__file__).parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in DRAWINGS.items():
        draw(make(), folder / f"space-{name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
