"""``python -m inas_deploy`` is ``inas-deploy``."""

from __future__ import annotations

from inas_deploy.cli import main

if __name__ == "__main__":
    main()
