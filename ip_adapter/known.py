"""Keys and values that an adapter has computed, so that a change of a scale computes nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .reference import KeysValues

LARGEST = 2**29
"""Most bytes that an adapter keeps: about 50 images of a plus adapter for SDXL in half precision."""


@dataclass(eq=False)
class Encoded:
    """An image as an adapter reads it.

    Attributes:
        tokens: its own and the unconditional ones (2, T, D); of timed adapters see `prompts.tokens_of`.
        keys_values: of the layers that were asked for so far.
    """

    tokens: Tensor
    keys_values: KeysValues = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of keys, values and tokens."""
        return self.tokens.nbytes + sum(k.nbytes + v.nbytes for k, v in self.keys_values.values())


class KnownImages:
    """The images used last, by content, up to LARGEST bytes."""

    def __init__(self) -> None:
        self.found: OrderedDict[str, Encoded] = OrderedDict()

    def get(self, content: str) -> Encoded | None:
        """Return an image, None for one that is not known."""
        return self.found.get(content)

    def put(self, images: Mapping[str, Encoded]) -> None:
        """Keep images, and forget those that were not used for longest where there are too many."""
        for content, each in images.items():
            self.found[content] = each
            self.found.move_to_end(content)
        size = sum(each.size for each in self.found.values())
        while size > LARGEST and self.found:
            size -= self.found.popitem(last=False)[1].size
