"""Seeds: several images, each of which can be reproduced alone."""

from __future__ import annotations

import re

from ..contract import io
from .checks import verdict
from .inputs import MAX_SEED

MOST = 128


def seeds_of(text: str) -> list[int]:
    """Return the seeds in a text, in order.

    >>> seeds_of("7, 12 7")
    [7, 12, 7]

    Raises:
        ValueError: there are none or more than 128, or one is not a whole number from 0 to 2**64 - 1.
    """
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    if not 1 <= len(words) <= MOST:
        raise ValueError(f"found {len(words)} seeds; write 1 to {MOST} of them with commas between, such as 1, 2, 3.")
    for word in words:
        if not re.fullmatch(r"[0-9]{1,20}", word) or int(word) > MAX_SEED:
            raise ValueError(f"found the seed {word[:40]!r}; write a whole number from 0 to {MAX_SEED}.")
    return [int(word) for word in words]


class TesseraSeeds(io.ComfyNode):
    """Run the nodes behind it once for each seed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSeeds",
            display_name="Seeds",
            category="Tessera/sampling",
            description="Makes an image for each seed of a list, the same that the seed gives alone.",
            search_aliases=["seed list", "multiple seeds", "batch seeds", "variations", "seed batch"],
            inputs=[
                io.String.Input("seeds", default="1, 2, 3, 4", tooltip="Whole numbers, separated by commas."),
            ],
            outputs=[
                io.Int.Output(
                    display_name="seed", is_output_list=True, tooltip="The seeds, one by one, for a sampler's seed."
                )
            ],
        )

    @classmethod
    def execute(cls, seeds: str) -> io.NodeOutput:
        """Read the list."""
        return io.NodeOutput(seeds_of(seeds))

    @classmethod
    def validate_inputs(cls, seeds: str | None = None) -> bool | str:
        """Read the list."""
        return verdict(cls, {"seeds": seeds}, (seeds_of, ["seeds"]))
