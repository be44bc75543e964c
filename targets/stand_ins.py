"""Keep computed figures out of measured tables: a simulated number is only ever shown among its like."""

from __future__ import annotations

from collections.abc import Iterable

from targets.errors import UsageError
from targets.inventory import Device
from targets.records import SIMULATED, SessionRecord, Variant


def refuse_mixed(variants: Iterable[Variant]) -> None:
    """Refuse to put simulated and measured variants into one run.

    Args:
        variants: All that are to stand in one table.

    Raises:
        UsageError: If some are simulated and some are not; both are named.
    """
    known = list(variants)
    simulated = [v for v in known if v.stand_in == SIMULATED]
    measured = [v for v in known if v.stand_in != SIMULATED]
    if simulated and measured:
        raise UsageError(
            f"{simulated[0].label} is simulated and {measured[0].label} is measured: they do not go into one table",
            "Name devices of one kind with --target.",
        )


def virtual_kind(device: Device) -> str | None:
    """``phone`` or ``board``; ``None`` for what is no virtual device."""
    return {"ssh": "board", "adb": "phone"}.get(device.transport) if device.stand_in == "virtual" else None


def how_to_reach(device: Device, otherwise: str) -> str:
    """What to do where a device does not answer: a virtual one was stopped, or lost with a restart of this machine.

    Args:
        device: That does not answer.
        otherwise: What helps where it is a real one.
    """
    kind = virtual_kind(device)
    if kind is None:
        return otherwise
    return f"Start it again: inas-deploy devices add --virtual {kind} --name {device.name}"


def check_session(variant: Variant, session: SessionRecord) -> None:
    """Refuse a session that is not of the kind its variant says.

    Raises:
        UsageError: If a simulated session is offered as a measured one, or a measured one as simulated.
    """
    if session.simulated != (variant.stand_in == SIMULATED):
        said = "simulated" if variant.stand_in == SIMULATED else "measured"
        raise UsageError(
            f"a session of {variant.label} is {'simulated' if session.simulated else 'measured'}, and the variant says "
            f"that it is {said}",
            "Correct 'stand_in' and 'transport' of the device in the inventory.",
        )
