"""What a test that starts virtual devices through commands leaves behind if it fails or is interrupted."""

import os
from pathlib import Path

from targets.virtual.board import stop_board
from targets.virtual.phone import stop_phone


def stop_virtual_devices():
    """Stop all that ``devices add --virtual`` started under the present ``XDG_CACHE_HOME``."""
    for folder in (Path(os.environ["XDG_CACHE_HOME"]) / "inas_deploy" / "virtual").glob("*"):
        stop_board(folder)
        stop_phone(folder)
