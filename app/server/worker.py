"""The one thread that runs prompts. Models stay loaded, and nodes whose inputs are the same do not run again."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...host.errors import NodeError
from ...host.graph.execution import Cache, NodeResult, Run
from ...host.progress import InterruptProcessingException, interrupt_current_processing, set_progress_bar_global_hook
from ...host.sampling import latent_preview
from ...host.schema.node import ComfyNode
from ...host.schema.object_info import ObjectInfo
from .clients import Clients
from .jobs import Job, JobQueue
from .telling import Telling

log = logging.getLogger(__name__)

MODELS_KEPT = 6
"""Results of loaders that stay when another prompt does not need them: the last used ones, two graphs' of three."""

STOP_SECONDS = 10.0
"""How long the end waits for what runs."""


class Worker:
    """Runs the jobs of a queue, one after the other.

    Args:
        classes: the node classes by id.
    """

    def __init__(self, queue: JobQueue, clients: Clients, classes: Mapping[str, type[ComfyNode]]) -> None:
        self.queue, self.clients, self.classes = queue, clients, classes
        self.current: Telling | None = None
        self._cache = Cache()
        self._models: dict[str, NodeResult] = {}
        self._thread = threading.Thread(target=self._work, name="tessera-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Stop what runs, and end; a node that cannot be stopped is left behind."""
        self.queue.close()
        self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        while not self.queue.closed:
            job = self.queue.take()
            if job is not None:
                told = self._done(job)
                # Whoever hears of the end asks the history what came of it.
                self.queue.finish(job, told.entry())
                told.ended()
            elif self.queue.asked_to_free():
                self._cache, self._models = Cache(), {}
                gc.collect()

    def _done(self, job: Job) -> Telling:
        """Run a job and return what is told of it."""
        told = self.current = Telling(job, self.clients)
        latent_preview.choose(job.extra_data.get("preview_method"))
        set_progress_bar_global_hook(told.progress)
        try:
            self._run(job, told)
        finally:
            set_progress_bar_global_hook(None)
            self.current = None
        return told

    def _run(self, job: Job, told: Telling) -> None:
        def cached(node_ids: list[str]) -> None:
            told.cached(node_ids)
            # Whoever stopped the job before the run was ready to hear it shall not have done so in vain.
            if job.interrupted:
                interrupt_current_processing()

        self._cache.entries.update(self._models)
        run = Run(
            job.prompt,
            job.outputs,
            ObjectInfo(self.classes),
            self._cache,
            extra_pnginfo=job.extra_data.get("extra_pnginfo"),
            resting=job.resting,
            on_cached=cached,
            on_node=told.node_starts,
            on_result=told.node_ends,
        )
        told.started()
        try:
            run.start()
        except InterruptProcessingException:
            told.interrupted(job.prompt[told.node_id]["class_type"] if told.node_id else "")
        except NodeError as error:
            log.warning("%s", error.line)
            told.failed(error, run)
        except BaseException as error:
            # A node that ends its thread (SystemExit) shall not end the worker.
            log.exception("prompt %s failed", job.prompt_id)
            told.failed(error, run)
        else:
            told.succeeded()
        self._keep(run)

    def _keep(self, run: Run) -> None:
        """Remember which models were used last."""
        for signature, result in run.loaded().items():
            if any(_is_model(value) for values in result.values for value in values):
                self._models.pop(signature, None)
                self._models[signature] = result
        for signature in list(self._models)[:-MODELS_KEPT]:
            del self._models[signature]


def _is_model(value: Any) -> bool:
    """Return whether a value is worth keeping: not a number, a text, an image, latents or what else is made quickly."""
    return not isinstance(value, (str, int, float, dict, list, tuple, Tensor, type(None)))
