"""What is told of one run: the messages to whoever sent the prompt, and the entry of the history."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from ...host.errors import NodeError
from .messages import Preview, jsonable, preview_message, preview_message_with

if TYPE_CHECKING:
    from ...host.graph.execution import NodeResult, Run
    from .clients import Clients
    from .jobs import Entry, Job

KNOWS_METADATA = "supports_preview_metadata"
"""The feature of clients that take previews with the node they belong to."""


class Telling:
    """Turns what happens in a run into ComfyUI's messages.

    Args:
        job: the prompt that runs.
        clients: where messages go: to the client of the job; where it named none, progress goes to all.
    """

    def __init__(self, job: Job, clients: Clients) -> None:
        self.job = job
        self.clients = clients
        self.node_id: str | None = None
        self.outputs: dict[str, Any] = {}
        self._log: list[tuple[str, dict[str, Any]]] = []
        self._meta: dict[str, Any] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._executed: list[str] = []
        self._status = "success"

    def started(self) -> None:
        """The run begins."""
        self._record("execution_start", {})

    def cached(self, node_ids: list[str]) -> None:
        """These nodes do not run again."""
        self._record("execution_cached", {"nodes": node_ids})

    def node_starts(self, node_id: str, class_type: str) -> None:
        """A node begins."""
        self.node_id = node_id
        self._set_state(node_id, "running", 0, 1)
        self._tell("executing", {"node": node_id, "display_node": node_id})

    def progress(self, value: float, total: float, preview: Preview | None = None) -> None:
        """The node that runs has done `value` of `total`."""
        if self.node_id is None:
            return
        self._set_state(self.node_id, "running", value, total)
        about = {"value": value, "max": total, "prompt_id": self.job.prompt_id, "node": self.node_id}
        if preview is not None:
            self._show(preview, self.node_id)
        self.clients.tell("progress", about, self.job.client_id)

    def node_ends(self, node_id: str, result: NodeResult) -> None:
        """A node has run, or its result is shown once more."""
        cached = node_id != self.node_id
        if result.ui:
            self.outputs[node_id] = jsonable(result.ui)
            self._meta[node_id] = {
                "node_id": node_id,
                "display_node": node_id,
                "parent_node": None,
                "real_node_id": node_id,
            }
        if result.ui or cached:
            self._tell("executed", {"node": node_id, "display_node": node_id, "output": self.outputs.get(node_id)})
        state = self._states.get(node_id, {"max": 1})
        self._set_state(node_id, "finished", state["max"], state["max"])
        if not cached:
            self._executed.append(node_id)

    def succeeded(self) -> None:
        """The run is done."""
        self._record("execution_success", {})

    def interrupted(self, class_type: str) -> None:
        """The run was stopped. Everybody is told, as somebody else may have stopped it."""
        self._status = "error"
        about = {"node_id": self.node_id, "node_type": class_type, "executed": self._executed}
        self._record("execution_interrupted", about, to_all=True)

    def failed(self, error: BaseException, run: Run) -> None:
        """A node failed."""
        self._status = "error"
        cause = error.__cause__ if isinstance(error, NodeError) and error.__cause__ else error
        about = {
            "node_id": self.node_id,
            "node_type": run.prompt[self.node_id]["class_type"] if self.node_id else None,
            "executed": self._executed,
            "exception_message": error.reason if isinstance(error, NodeError) else str(error),
            "exception_type": _type_name(cause),
            "traceback": traceback.format_tb(cause.__traceback__),
            "current_inputs": _shown(run, self.node_id),
            "current_outputs": list(run.entries),
        }
        self._record("execution_error", about)

    def ended(self) -> None:
        """Nothing more comes of this prompt."""
        self._tell("executing", {"node": None})

    def entry(self) -> Entry:
        """Return what the history keeps."""
        status = {"status_str": self._status, "completed": self._status == "success", "messages": self._log}
        return {"prompt": self.job.as_item(), "outputs": self.outputs, "status": status, "meta": self._meta}

    def _record(self, event: str, about: dict[str, Any], to_all: bool = False) -> None:
        """Send a message that the history keeps."""
        data = {"prompt_id": self.job.prompt_id, **about, "timestamp": int(time.time() * 1000)}
        self._log.append((event, jsonable(data)))
        if self.job.client_id is not None or to_all:
            self.clients.tell(event, data, self.job.client_id)

    def _tell(self, event: str, about: dict[str, Any]) -> None:
        if self.job.client_id is not None:
            self.clients.tell(event, {**about, "prompt_id": self.job.prompt_id}, self.job.client_id)

    def _set_state(self, node_id: str, state: str, value: float, total: float) -> None:
        about = {"value": value, "max": total, "state": state, "prompt_id": self.job.prompt_id}
        self._states[node_id] = {**about, **_ids(node_id)}
        states = {"prompt_id": self.job.prompt_id, "nodes": self._states}
        self.clients.tell("progress_state", states, self.job.client_id)

    def _show(self, preview: Preview, node_id: str) -> None:
        client = self.job.client_id
        if self.clients.has_feature(client, KNOWS_METADATA):
            about = {"prompt_id": self.job.prompt_id, **_ids(node_id)}
            self.clients.send(lambda: preview_message_with(preview, about), client)
        else:
            self.clients.send(lambda: preview_message(preview), client)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _ids(node_id: str) -> dict[str, Any]:
    """Return a node's names; they differ in ComfyUI where a node expands into others, which no node here does."""
    return {"node_id": node_id, "display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}


def _shown(run: Run, node_id: str | None) -> dict[str, list[Any]]:
    """Return the values that a node was given, as far as they can be read."""
    if node_id is None:
        return {}
    inputs = run.inputs(node_id)
    plain = (str, int, float, bool, type(None))
    return {
        name: [value if isinstance(value, plain) else type(value).__name__ for value in values]
        for name, values in inputs.items()
    }
