"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ...host.schema.node import ComfyNode
from ...host.schema.object_info import ObjectInfo
from .clients import Clients
from .jobs import JobQueue
from .worker import Worker


@dataclass
class State:
    """One server.

    Attributes:
        editor: the folder of the editor's static files; None where it is not installed.
        user_dir: of settings and saved workflows.
    """

    classes: dict[str, type[ComfyNode]]
    editor: Path | None
    user_dir: Path

    def __post_init__(self) -> None:
        self.clients = Clients()
        self.queue = JobQueue(self.tell_status)
        self.worker = Worker(self.queue, self.clients, self.classes)

    def object_info(self) -> ObjectInfo:
        """Return what is known of every node; combo boxes list the files that are there now."""
        return ObjectInfo(self.classes)

    def status(self) -> dict[str, Any]:
        """Return how much there is to do."""
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def tell_status(self) -> None:
        """Tell all clients how much there is to do."""
        self.clients.tell("status", {"status": self.status()})


STATE = web.AppKey("state", State)
