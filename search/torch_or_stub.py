"""torch where it is installed; else stand-ins that let a module be imported and name the extra once they are used.

So that network modules can be plain classes and still be imported without the ``torch`` extra::

    from search.torch_or_stub import functional, nn, torch
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from targets.extras import require

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn import functional
else:

    class _Absent:
        """Base of classes that cannot be made without torch."""

        def __init__(self, *_: Any, **__: Any) -> None:
            require("torch", "torch")

        def __init_subclass__(cls, **_: Any) -> None:
            """Let network classes be defined."""

    class _Stub:
        """Hands out ``_Absent`` for every name, so that base classes can be looked up at import."""

        def __getattr__(self, name: str) -> type[_Absent]:
            return _Absent

    try:
        import torch
        from torch import nn
        from torch.nn import functional
    except ModuleNotFoundError:
        torch = nn = functional = _Stub()

__all__ = ["functional", "nn", "torch"]
