"""What a node takes and gives: sockets and the widgets on them, as in `comfy_api.latest.io`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar

_OPTION_NAMES = {"force_input": "forceInput", "dynamic_prompts": "dynamicPrompts", "display_mode": "display"}
"""ComfyUI's spelling of an option in /object_info, where it is not the argument's name."""

_NOT_OPTIONS = {"id", "extra_dict", "upload"}


class FolderType(str, Enum):
    """Where a file is."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    """Which upload button a list of files has."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):
    """How a number is edited."""

    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class ControlAfterGenerate(str, Enum):
    """What happens to a seed after each run."""

    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


@dataclass
class Input:
    """A socket: its name, and what the interface shows of it."""

    id: str
    display_name: str | None = None
    optional: bool = False
    tooltip: str | None = None
    lazy: bool | None = None
    _: KW_ONLY
    extra_dict: dict[str, Any] | None = None
    advanced: bool | None = None

    io_type: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the options as /object_info spells them, those left out excepted."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_OPTIONS}
        named = {
            _OPTION_NAMES.get(name, name): value.value if isinstance(value, Enum) else value
            for name, value in options.items()
            if value is not None
        }
        return named | (self.extra_dict or {})

    def get_io_type(self) -> str:
        """Return the type's name in links and in /object_info."""
        return self.io_type


@dataclass
class WidgetInput(Input):
    """An input that can be typed in as well as linked."""

    _: KW_ONLY
    default: Any = None
    socketless: bool | None = None
    force_input: bool | None = None


@dataclass
class Output:
    """One result of a node."""

    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False

    io_type: ClassVar[str]

    def __post_init__(self) -> None:
        self.display_name = self.display_name or self.id

    def get_io_type(self) -> str:
        """Return the type's name in links and in /object_info."""
        return self.io_type


class ComfyType:
    """A type of value. A subclass names it in `io_type`; its `Input` and `Output` then carry that name."""

    io_type: ClassVar[str]
    Type: ClassVar[Any] = Any

    def __init_subclass__(cls) -> None:
        for name in ("Input", "Output"):
            if hasattr(cls, "io_type") and hasattr(cls, name):
                base = getattr(cls, name)
                setattr(cls, name, type(name, (base,), {"io_type": cls.io_type, "__doc__": base.__doc__}))


_Socket, _Result = Input, Output


class ComfyTypeIO(ComfyType):
    """A type that is only ever linked."""

    class Input(_Socket):
        """A socket."""

    class Output(_Result):
        """A result."""


def Custom(io_type: str) -> type[ComfyTypeIO]:  # noqa: N802 - the name ComfyUI gave it
    """Return a type of the pack's own; `Custom("A,B")` takes either, `Custom("*")` takes anything."""
    return type(io_type, (ComfyTypeIO,), {"io_type": io_type})


class Boolean(ComfyType):
    """A switch."""

    io_type = "BOOLEAN"
    Type = bool

    @dataclass
    class Input(WidgetInput):
        """A switch."""

        _: KW_ONLY
        label_on: str | None = None
        label_off: str | None = None

    class Output(_Result):
        """A truth value."""


class Int(ComfyType):
    """A whole number."""

    io_type = "INT"
    Type = int

    @dataclass
    class Input(WidgetInput):
        """A whole number between `min` and `max`, both included."""

        _: KW_ONLY
        min: int | None = None
        max: int | None = None
        step: int | None = None
        control_after_generate: bool | ControlAfterGenerate | None = None
        display_mode: NumberDisplay | None = None

    class Output(_Result):
        """A whole number."""


class Float(ComfyType):
    """A number."""

    io_type = "FLOAT"
    Type = float

    @dataclass
    class Input(WidgetInput):
        """A number between `min` and `max`, both included."""

        _: KW_ONLY
        min: float | None = None
        max: float | None = None
        step: float | None = None
        round: float | None = None
        display_mode: NumberDisplay | None = None

    class Output(_Result):
        """A number."""


class String(ComfyType):
    """Text."""

    io_type = "STRING"
    Type = str

    @dataclass
    class Input(WidgetInput):
        """Text, on one line or on several."""

        _: KW_ONLY
        multiline: bool = False
        placeholder: str | None = None
        dynamic_prompts: bool | None = None

    class Output(_Result):
        """Text."""


class Combo(ComfyType):
    """One of a list."""

    io_type = "COMBO"
    Type = str

    @dataclass(init=False)
    class Input(WidgetInput):
        """One of `options`, a list or the values of an Enum."""

        _: KW_ONLY
        options: list[Any]
        control_after_generate: bool | ControlAfterGenerate | None
        upload: UploadType | None
        image_folder: FolderType | None
        multiselect: bool

        def __init__(
            self,
            id: str,
            options: Sequence[Any] | type[Enum] = (),
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: Any = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                lazy,
                default=default,
                socketless=socketless,
                extra_dict=extra_dict,
                advanced=advanced,
            )
            # A list of a kind of its own stays one: names of files are told from fixed choices by it.
            kind: type[list[Any]] = type(options) if isinstance(options, list) else list
            self.options = kind(o.value if isinstance(o, Enum) else o for o in options)
            self.control_after_generate = control_after_generate
            self.upload = upload
            self.image_folder = image_folder
            self.multiselect = False

        def as_dict(self) -> dict[str, Any]:
            """Return the options as /object_info spells them; an upload button is a flag of its own."""
            return super().as_dict() | ({self.upload.value: True} if self.upload else {})

    @dataclass
    class Output(_Result):
        """One of a list."""

        options: list[Any] = field(default_factory=list)


class Color(ComfyType):
    """A colour, "#rrggbb"."""

    io_type = "COLOR"
    Type = str

    class Input(WidgetInput):
        """A colour that is picked."""

    class Output(_Result):
        """A colour."""


class ImageCompare(ComfyType):
    """A view of two images with a slider between them."""

    io_type = "IMAGECOMPARE"

    class Input(WidgetInput):
        """The view."""
