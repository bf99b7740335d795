"""What the names of diffusion models leave to shapes and neighbors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import Role
from lorascope.model.widths import ancestors

Shape = tuple[int, ...]


def diffusion_roles(roles: Mapping[str, tuple[Role, bool]], shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Role]]:
    """Weights of whose roles the names say another.

    - What a time embedding is multiplied with last, into several times its width, modulates (`time_embed.linear`).
    - A second attention is one over the prompt only where there is a first (SD3 has a second one over the image).
    - A model that denoises ends in pixels or latents, not in logits.

    Args:
        roles: Weight name to role and guess.
        shapes: Weight name to shape.
    """
    widths = {shapes[name][0] for name, (role, _) in roles.items() if (role.block, role.part) == ("embedding", "time")}
    first = {place for name in roles for place in ancestors(name) if place.endswith(".attn1")}
    for name, (role, _) in roles.items():
        rows, columns = shapes[name][-2:]
        if (role.block, role.part) == ("embedding", "time") and rows > columns and rows % columns == 0:
            if columns in widths:
                yield name, dataclasses.replace(role, block="modulation", part="")
        elif role.variant == "cross" and ".attn2." in name and f"{name.rpartition('.attn2.')[0]}.attn1" not in first:
            yield name, dataclasses.replace(role, variant="self")
        elif (role.component, role.block, role.part) == ("diffusion", "head", "lm"):
            yield name, dataclasses.replace(role, part="")
