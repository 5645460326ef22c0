"""ComfyUI's core nodes that choose, count and compute."""

from __future__ import annotations

import math
import string
from typing import Any

from ..schema import io
from ..schema.declare import Nodes, choice, decimal, integer, text

LARGEST = 9223372036854775807
MEGAPIXEL = 1024 * 1024
RATIOS = {
    "1:1 (Square)": (1, 1),
    "2:3 (Portrait Photo)": (2, 3),
    "3:2 (Photo)": (3, 2),
    "3:4 (Portrait Standard)": (3, 4),
    "4:3 (Standard)": (4, 3),
    "9:16 (Portrait Widescreen)": (9, 16),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
}
NUMBERS = (io.Float, io.Int, io.Boolean)
NODES = Nodes("utilities")
PRIMITIVE, LOGIC = "utilities/primitive", "utilities/logic"


def _row(name: str, kind: io.Input, **template: Any) -> io.Autogrow.Input:
    row = io.Autogrow.TemplatePrefix(kind, **template) if "prefix" in template else None
    return io.Autogrow.Input(
        name, row or io.Autogrow.TemplateNames(kind, **template), tooltip="The values; linking the last adds another."
    )


def _primitive(
    node_id: str, display_name: str, value: io.Input, kind: type[Any], aliases: tuple[str, ...] = ()
) -> None:
    value.tooltip = "The value."
    declare = NODES(node_id, display_name, [value], [kind], PRIMITIVE, search_aliases=list(aliases))

    @declare
    def give(value: Any) -> Any:
        """Hold a value that several nodes take."""
        return value


_primitive("PrimitiveString", "Text", io.String.Input("value"), io.String, ("text", "string", "text box", "prompt"))
_primitive(
    "PrimitiveStringMultiline",
    "Text (Multiline)",
    text("value"),
    io.String,
    ("text", "string", "text multiline", "string multiline", "text box", "prompt"),
)
_primitive(
    "PrimitiveInt",
    "Int",
    io.Int.Input("value", min=-LARGEST, max=LARGEST, control_after_generate=io.ControlAfterGenerate.fixed),
    io.Int,
)
_primitive("PrimitiveFloat", "Float", io.Float.Input("value", min=-LARGEST, max=LARGEST, step=0.1), io.Float)
_primitive("PrimitiveBoolean", "Boolean", io.Boolean.Input("value"), io.Boolean)


@NODES(
    "SeedNode",
    "Seed",
    [io.Int.Input("seed", min=0, max=LARGEST, control_after_generate=io.ControlAfterGenerate.fixed)],
    [("seed", io.Int)],
    search_aliases=["seed", "random"],
)
def seed(seed: int) -> int:
    """Hold a random seed that several nodes take."""
    return seed


MAX_EXPONENT = 4000
"""Of `pow`; powers of larger numbers take for ever."""


def _sum(*values: Any) -> Any:
    return sum(values[0] if len(values) == 1 and isinstance(values[0], list) else values)


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > MAX_EXPONENT:
        raise ValueError(f"the exponent {exponent} is too large, expected at most {MAX_EXPONENT}")
    return pow(base, exponent)


FUNCTIONS = {each.__name__: each for each in (min, max, abs, round, int, float)} | {"sum": _sum, "pow": _power}
FUNCTIONS |= {
    name: getattr(math, name) for name in ("sqrt", "ceil", "floor", "log", "log2", "log10", "sin", "cos", "tan")
}


def evaluate(expression: str, names: dict[str, Any]) -> Any:
    """Return the value of an expression in Python's syntax, which knows `names` and `FUNCTIONS` alone.

    Raises:
        ValueError: it has no value.
    """
    from simpleeval import simple_eval

    if not expression.strip():
        raise ValueError("expression is empty, expected one such as a + b")
    try:
        return simple_eval(expression, names=names, functions=FUNCTIONS)
    # What a typed-in expression may do wrong is of any kind: names, syntax, types, a division by zero.
    except Exception as error:
        raise ValueError(f"expression {expression!r}: {error}") from None


EITHER = io.MatchType.Template("switch")


def _needed(switch: bool, on_false: Any = None, on_true: Any = None) -> list[str]:
    wanted, value = ("on_true", on_true) if switch else ("on_false", on_false)
    return [wanted] if value is None else []


@NODES(
    "ComfySwitchNode",
    "If/Else Switch",
    [
        io.Boolean.Input("switch", tooltip="Which of the two is passed on."),
        io.MatchType.Input("on_false", EITHER, lazy=True, tooltip="What is passed on when the switch is off."),
        io.MatchType.Input("on_true", EITHER, lazy=True, tooltip="What is passed on when the switch is on."),
    ],
    [io.MatchType.Output(EITHER, "output")],
    LOGIC,
    lazy=_needed,
    is_experimental=True,
    search_aliases=["if", "then", "switch", "conditional", "branch"],
)
def switch(switch: bool, on_false: Any = None, on_true: Any = None) -> Any:
    """Choose one of two values; what leads to the other is not run."""
    return on_true if switch else on_false


@NODES(
    "ComfyNotNode",
    "Not",
    [io.AnyType.Input("value", tooltip="The value.")],
    [io.Boolean],
    LOGIC,
    search_aliases=["invert", "toggle", "negate", "flip boolean"],
)
def logical_not(value: Any) -> bool:
    """Check whether a value is false, zero or empty."""
    return not value


@NODES(
    "ComfyAndNode",
    "And",
    [_row("values", io.AnyType.Input("value"), prefix="value")],
    [io.Boolean],
    LOGIC,
    search_aliases=["all", "every"],
)
def logical_and(values: dict[str, Any]) -> bool:
    """Check whether all values are true, not zero and not empty."""
    return all(values.values())


@NODES(
    "ComfyOrNode",
    "Or",
    [_row("values", io.AnyType.Input("value"), prefix="value")],
    [io.Boolean],
    LOGIC,
    search_aliases=["any", "some"],
)
def logical_or(values: dict[str, Any]) -> bool:
    """Check whether any value is true, not zero and not empty."""
    return any(values.values())


def _anything(choice: str, index: int = 0, **options: Any) -> bool:
    return True


@NODES(
    "CustomCombo",
    "Custom Combo",
    [choice("choice", [], tooltip="One of the choices that were typed in.")],
    [io.String, ("INDEX", io.Int)],
    validate=_anything,
    is_experimental=True,
    accept_all_inputs=True,
)
def custom_combo(choice: str, index: int = 0, **options: Any) -> tuple[str, int]:
    """Choose one of some texts, which are typed in in the editor."""
    return choice, index


@NODES(
    "ComfyMathExpression",
    "Math Expression",
    [
        text(
            "expression", default="a + b", tooltip="With the names of the values, and functions such as min and round."
        ),
        _row("values", io.MultiType.Input("value", NUMBERS), names=string.ascii_lowercase),
    ],
    [io.Float, io.Int, ("BOOL", io.Boolean)],
    search_aliases=["expression", "formula", "calculate", "calculator", "eval", "math"],
)
def math_expression(expression: str, values: dict[str, float]) -> tuple[float, int, bool]:
    """Compute with numbers."""
    result = evaluate(expression, {**values, "values": list(values.values())})
    if not isinstance(result, (int, float)):
        raise ValueError(f"{expression!r} is {result!r}, expected an expression whose result is a number")
    try:
        number = float(result)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{expression!r} is {number}, expected a finite number")
    return number, int(result), bool(result)


@NODES(
    "ResolutionSelector",
    "Resolution Selector",
    [
        choice("aspect_ratio", list(RATIOS), default="1:1 (Square)", tooltip="Width by height."),
        decimal("megapixels", 1.0, 0.1, 16.0, 0.1, tooltip="1 is 1024 x 1024."),
        integer("multiple", 8, 8, 128, 4, advanced=True, tooltip="What both sides are multiples of."),
    ],
    [("width", io.Int), ("height", io.Int)],
)
def resolution(aspect_ratio: str, megapixels: float, multiple: int) -> tuple[int, ...]:
    """Compute width and height of a proportion and a number of pixels."""
    sides = RATIOS[aspect_ratio]
    scale = math.sqrt(megapixels * MEGAPIXEL / math.prod(sides))
    return tuple(round(side * scale / multiple) * multiple for side in sides)


@NODES(
    "ComfyNumberConvert",
    "Convert Number",
    [
        io.MultiType.Input(
            "value", [io.Int, io.Float, io.String, io.Boolean], display_name="value", tooltip="The value."
        )
    ],
    [io.Float, io.Int],
    search_aliases=[
        "int to float",
        "float to int",
        "number convert",
        "int2float",
        "float2int",
        "cast",
        "parse number",
        "string to number",
        "bool to int",
    ],
)
def convert_number(value: Any) -> tuple[float, int]:
    """Read a number, also out of text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"value is {value!r}, expected a number") from None
    if not math.isfinite(number):
        raise ValueError(f"value is {value!r}, expected a finite number")
    try:
        return number, int(value)
    except ValueError:
        return number, int(number)


ITEM = io.MatchType.Template("type")


@NODES(
    "CreateList",
    "Create List",
    [_row("inputs", io.MatchType.Input("input", ITEM), prefix="input")],
    [io.MatchType.Output(ITEM, "list", is_output_list=True)],
    is_input_list=True,
    search_aliases=["Image Iterator", "Text Iterator", "Iterator"],
)
def create_list(inputs: dict[str, list[Any]]) -> io.NodeOutput:
    """Run what follows once for each of some values."""
    return io.NodeOutput([item for items in inputs.values() for item in items])
