"""What a bench is going to measure: the part that decides whether two benches are the same one."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Annotated, Literal

from pydantic import Field

from targets.records import Artifact, Frozen, RunSettings, StandIn, Variant


class BenchPlan(Frozen):
    """Variants and how often each is measured.

    Attributes:
        kind: ``bench``, or ``compare`` for two variants in alternating pairs.
        variants: What is measured, interleaved.
        sessions: Sessions a variant.
        seconds: Timed part of each session.
        per_op: Whether a per-op profile follows the sessions.
        profile_seconds: Timed part of a profile.
        seed: Seed of the order within each round.
        margin: Relative difference that a comparison counts as the same.
    """

    kind: Literal["bench", "compare"] = "bench"
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    sessions: Annotated[int, Field(ge=1, le=10_000)]
    seconds: Annotated[float, Field(gt=0, le=3600)]
    per_op: bool = True
    profile_seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
    seed: int = 0
    margin: Annotated[float, Field(gt=0, le=1)] = 0.03

    def sha256(self) -> str:
        """Hash over everything that decides the figures; equal plans resume each other."""
        plain = self.model_dump(mode="json")
        for variant in plain["variants"]:
            del variant["artifact"]["path"]  # the content counts, not where it lies
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def rounds(self) -> list[tuple[int, Variant]]:
        """Order of all sessions: round by round, every variant once a round.

        Every second round is drawn by seed and the next one runs it backwards, so that slow drift of
        the host, and any effect of who goes first, falls on all alike.
        """
        order: list[tuple[int, Variant]] = []
        draw = random.Random(self.seed)
        variants = list(self.variants)
        for index in range(self.sessions):
            if index % 2:
                variants.reverse()
            else:
                draw.shuffle(variants)
            order.extend((index, variant) for variant in variants)
        return order


def make_variant(
    model: str,
    artifact: Artifact,
    settings: RunSettings,
    *,
    device: str = "local",
    stand_in: StandIn | None = None,
    model_note: str = "",
    role: str = "",
) -> Variant:
    """Name and key a variant.

    Args:
        model: Model name or file name.
        artifact: What is loaded.
        settings: How it is run.
        device: Device name.
        stand_in: How the device is not the real thing, if it is not.
        model_note: What a reader must know about the model.
        role: ``A`` or ``B`` in a comparison, so that a thing can be compared with itself.
    """
    decides = (role, model, device, artifact.sha256, settings.model_dump_json(), *([stand_in] if stand_in else []))
    label = f"{model} @ {settings.runtime} {settings.precision.value} {settings.threads}t"
    if settings.mode == "sustained":
        label += " sustained"
    if device != "local":
        label += f" on {device}"
    return Variant(
        key=hashlib.sha256("\n".join(decides).encode()).hexdigest()[:32],
        label=f"{role}: {label}" if role else label,
        model=model,
        model_note=model_note,
        device=device,
        stand_in=stand_in,
        artifact=artifact,
        settings=settings,
    )
