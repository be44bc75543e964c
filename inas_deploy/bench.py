"""``python -m inas_deploy.bench`` is ``inas-deploy bench``."""

from __future__ import annotations

import sys

from inas_deploy.__main__ import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
