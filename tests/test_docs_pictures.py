"""The drawn spaces come from the spaces' own data."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
NAMES = sorted(path.name for path in PICTURES.glob("*.svg"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
NEAR = 0.5
"""Points that versions of the drawing library may place things apart."""
UNSEEN = {"id", "clip-path", "version"}
DIGITS = str.maketrans("0123456789", "ghijklmnop")
"""So that a colour is a word and not a number near another."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    subprocess.run([sys.executable, ROOT / "docs" / "draw_spaces.py", folder], cwd=ROOT, check=True)
    return folder


def words(path):
    return " ".join(text.strip() for text in ElementTree.parse(path).getroot().itertext() if text.strip())


def seen(root):
    """What each element shows, in drawing order: its kind, text and attributes without numbers, and the numbers."""
    found = []
    for element in root.iter():
        kind = element.tag.rpartition("}")[2]
        if "svg" in element.tag and kind not in {"g", "metadata", "defs", "clipPath", "style"}:
            shown = sorted((key, value) for key, value in element.attrib.items() if key not in UNSEEN)
            values = " ".join(f"{key}={value}" for key, value in shown)
            values = re.sub(r"#[0-9a-f]{6}", lambda colour: colour[0].translate(DIGITS), values)
            form = " ".join(NUMBER.sub("0", values).split())
            numbers = [float(number) for number in NUMBER.findall(values)]
            found.append((f"{kind} {(element.text or '').strip()} {form}", numbers))
    return found


def equal(one, other):
    one, other = seen(one), seen(other)
    return [form for form, _ in one] == [form for form, _ in other] and all(
        len(a) == len(b) and all(abs(x - y) <= NEAR for x, y in zip(a, b, strict=True))
        for (_, a), (_, b) in zip(one, other, strict=True)
    )


def root_of(path):
    return ElementTree.parse(path).getroot()


def test_every_picture_is_drawn_and_shown(drawn):
    assert sorted(path.name for path in drawn.iterdir()) == NAMES
    text = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
    assert all(f"pictures/{name}" in text for name in NAMES)
    assert "8.78e+61" in words(drawn / "space-inas.svg")
    assert "skip | LIR | MHSA" in words(drawn / "space-rtseg.svg")


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_the_one_the_script_draws(name, drawn):
    assert equal(root_of(drawn / name), root_of(PICTURES / name))


def paths(root):
    return [element for element in root.iter() if element.tag.endswith("}path")]


def without_arrows(root):
    for holder in list(root.iter()):
        for child in [child for child in holder if child.tag.endswith("}path") and "linecap" in child.get("style", "")]:
            holder.remove(child)


def with_an_arrow_moved(root):
    path = next(element for element in paths(root) if "fill: none" in element.get("style"))
    path.set("d", NUMBER.sub(lambda number: str(float(number[0]) + 3), path.get("d"), count=1))


def with_a_box_in_another_colour(root):
    path = next(element for element in paths(root) if "#cfe8cf" in element.get("style"))
    path.set("style", path.get("style").replace("#cfe8cf", "#cfe8df"))


def with_a_word_moved(root):
    text = [element for element in root.iter() if element.tag.endswith("}text")][2]
    (key,) = [key for key in text.attrib if key in {"x", "transform"}][:1]
    text.set(key, NUMBER.sub(lambda number: str(float(number[0]) + 5), text.get(key)))


def with_a_word_changed(root):
    text = [element for element in root.iter() if element.tag.endswith("}text")][2]
    text.text = f"{text.text}x"


CHANGES = (
    without_arrows,
    with_an_arrow_moved,
    with_a_box_in_another_colour,
    with_a_word_moved,
    with_a_word_changed,
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_the_comparison_sees(name, change):
    root = root_of(PICTURES / name)
    change(root)
    assert not equal(root, root_of(PICTURES / name))
