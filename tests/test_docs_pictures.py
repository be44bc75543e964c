"""The drawn spaces come from the spaces' own data."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent


def words(path):
    return " ".join(text.strip() for text in ElementTree.parse(path).getroot().itertext() if text.strip())


def test_pictures_are_those_the_script_draws(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "draw_spaces.py", tmp_path], cwd=ROOT, check=True)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in (ROOT / "docs" / "pictures").glob("*.svg"))
    for name in drawn:
        assert words(tmp_path / name) == words(ROOT / "docs" / "pictures" / name)
        assert f"pictures/{name}" in (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
    assert "8.78e+61" in words(tmp_path / "space-inas.svg")
    assert "skip | LIR | MHSA" in words(tmp_path / "space-rtseg.svg")
