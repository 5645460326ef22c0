"""The table of schedulers on their help page, made from the registry.

`python -m tessera.tools.scheduler_page` updates the page; a test fails when it is not.
"""

from __future__ import annotations

from pathlib import Path

from ..samplers.registry import ENTRIES, SchedulerEntry

PAGE = Path(__file__).parents[1] / "web" / "docs" / "TesseraScheduler.md"
BEGIN, END = "<!-- schedulers -->", "<!-- end of schedulers -->"
HEADS = ("scheduler", "method", "model calls for n steps", "noise", "auto spacing", "good steps", "options")


def table() -> str:
    """Return the schedulers as a Markdown table."""
    rows = [HEADS, ("---",) * len(HEADS), *(_row(entry) for entry in ENTRIES)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(entry: SchedulerEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.family,
        entry.calls,
        "every step" if entry.noise else "",
        entry.spacing,
        entry.steps,
        ", ".join(entry.options),
    )


def with_table(page: str) -> str:
    """Return a page with the present table between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
