"""Where a latency was measured and for what: what two latencies must share before they are mixed or compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from targets.records import SIMULATED, Frozen, RunSettings, StandIn


class Conditions(Frozen):
    """What a table, a predictor or a whole-network latency holds for.

    Attributes:
        device: Name of the device in the inventory.
        stand_in: How the device is not the real thing, else ``None``.
        settings: Runtime, precision, threads and all else that is set.
        space: Id of the search space.
        classes: Output maps of its networks.
        input_size: Height and width in pixels.
        versions: Versions of runtime, driver and system, by name.
        hardware: Processor or system on chip, as the device tells it; empty where it does not.
    """

    device: str
    stand_in: StandIn | None = None
    settings: RunSettings
    space: str
    classes: Annotated[int, Field(ge=1)] = 1
    input_size: tuple[int, int]
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: str = ""

    def difference(self, other: Conditions) -> str:
        """What keeps figures under these conditions from being mixed with others', ``""`` where nothing does.

        Versions and the device's name may differ: they are told, and fresh measurements say whether it matters.

        Args:
            other: The other conditions.
        """
        for name in ("stand_in", "settings", "space", "classes", "input_size", "hardware"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                return f"{name} is {mine!s} here and {its!s} there"
        return ""

    @property
    def label(self) -> str:
        """One line for people, a stand-in called one."""
        settings, (height, width) = self.settings, self.input_size
        words = [
            f"{self.space} at {height}x{width} on {self.device}",
            f"({self.stand_in})" if self.stand_in else "",
            f"{settings.runtime} {settings.precision} {settings.threads}t",
            settings.accelerator if settings.accelerator != "cpu" else "",
        ]
        return " ".join(word for word in words if word)

    @property
    def measured(self) -> bool:
        """Whether the figures were timed, not computed."""
        return self.stand_in != SIMULATED
