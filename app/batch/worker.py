"""What runs one job after the other: in this process, or as an actor of Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...host.errors import GraphError, NodeError, one_line
from ...host.graph.documents import Workflow
from ..assignments import apply
from ..engines.choose import open_engine
from ..engines.engine import Engine, Task
from ..engines.errors import EngineLost

DONE, FAILED, REFUSED, OUT_OF_MEMORY, ENGINE_LOST = "done", "failed", "refused", "out of memory", "engine lost"
"""How a job ends: with results; with an error that another try may not have; with one that it would have again; for
want of memory, which another process may have; for want of an engine."""


@dataclass(frozen=True)
class Order:
    """A job as a worker gets it.

    Attributes:
        prompt, outputs, files: of the engine's task.
        settings: what the row changes, by NODE.INPUT, for the UI-format graph that saved images carry.
        ui_graph: the UI-format graph itself, where the row has one of its own.
    """

    prompt: Mapping[str, Any]
    outputs: Sequence[str]
    files: Mapping[str, bytes]
    settings: Mapping[str, Any]
    ui_graph: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        kind: DONE, FAILED, REFUSED, OUT_OF_MEMORY or ENGINE_LOST.
        files: contents by relative path.
        told: texts and numbers by node id.
        error: one line; None where it is done.
    """

    kind: str
    worker: str
    seconds: float
    files: Mapping[str, bytes] = field(default_factory=dict)
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    error: str | None = None


class Worker:
    """Runs orders on an engine of its own, whose models and results of nodes stay for the next one.

    Args:
        engine: an engine, or its name for `open_engine`.
        options: for `open_engine`.
        workflow: what the orders have in common.
        name: begins the name in the journal.
    """

    def __init__(self, engine: Engine | str, options: Mapping[str, Any], workflow: Workflow | None, name: str) -> None:
        # Nothing is downloaded, wherever a worker runs.
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.engine = open_engine(engine, **options) if isinstance(engine, str) else engine
        self.workflow = workflow
        self.name = self.engine.name if name == self.engine.name else f"{name} {self.engine.name}".strip()

    def ready(self) -> str:
        """Load what every job needs, and return the worker's name."""
        self.engine.object_info()
        return self.name

    def run(self, order: Order) -> Outcome:
        """Run a job; only an interruption is raised."""
        started = time.monotonic()

        def ended(kind: str, error: str) -> Outcome:
            return Outcome(kind, self.name, round(time.monotonic() - started, 3), error=one_line(error))

        try:
            made = self.engine.run(Task(dict(order.prompt), order.outputs, self._extra(order), order.files))
        except NodeError as error:
            return ended(_kind(error), error.line)
        except GraphError as error:
            return ended(REFUSED, "; ".join(error.lines))
        except EngineLost as error:
            return ended(ENGINE_LOST, error.line)
        except Exception as error:  # A mistake of ours or a full disk here; the other jobs go on.
            from ...host.graph.failures import is_out_of_memory

            return ended(OUT_OF_MEMORY if is_out_of_memory(error) else FAILED, f"{type(error).__name__}: {error}")
        return Outcome(DONE, self.name, round(time.monotonic() - started, 3), made.files, made.told)

    def _extra(self, order: Order) -> Mapping[str, Any] | None:
        if order.ui_graph is not None:
            return {"workflow": order.ui_graph}
        if self.workflow is None or self.workflow.ui_graph is None:
            return None
        return apply(order.settings, self.workflow, self.engine.object_info()).extra_pnginfo


def _kind(error: NodeError) -> str:
    """Return how the job of a node that failed ended, which decides whether it is tried again."""
    from ...host.graph.failures import is_out_of_memory, may_pass

    if is_out_of_memory(error.__cause__):
        return OUT_OF_MEMORY
    return REFUSED if error.bad_input and not may_pass(error.__cause__) else FAILED
