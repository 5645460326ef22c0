"""Run workflows from Python: `tessera.run("workflow.json", {"3.text": "moss"})`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..host.errors import GraphError, NodeError, reading
from .engines.address import is_server
from .engines.errors import EngineLost

if TYPE_CHECKING:
    from PIL import Image

    from ..host.graph.documents import Workflow
    from ..host.graph.execution import Cache, Run
    from ..host.schema.object_info import ObjectInfo

__all__ = ["EngineLost", "GraphError", "NodeError", "Progress", "Results", "collect", "execute", "prepare", "run"]

Progress = Callable[[str, float, float], None]
"""Called with a node's id, and how many of how many of its steps are done."""

_caches: dict[tuple[Any, ...], Cache] = {}
"""What the last call loaded, by folders, device and precision."""

_one_at_a_time = threading.Lock()
"""Folders, device and interruption belong to the process."""


class _ProgressFailed(BaseException):
    """Carries what `progress` raised past the node that ran, which is not to blame."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(error)


@dataclass(frozen=True)
class Results(Sequence["Image.Image"]):
    """The images that a run saved, each opened when it is asked for.

    Attributes:
        paths: the saved files, in the order in which the nodes ran.
        outputs: by node id what each node showed and returned, as `tessera run --json` prints it, previews included.
        seconds: how long the run took, reading and checking included.
    """

    paths: list[str]
    outputs: dict[str, dict[str, list[Any]]]
    seconds: float

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        return [_open(path) for path in self.paths[index]] if isinstance(index, slice) else _open(self.paths[index])


def run(
    workflow: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    input_dir: str | Path | None = None,
    output_dir: str | Path | None = None,
    models_dir: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
    engine: str | None = None,
    replace: Callable[[str], None] | None = None,
) -> Results:
    """Run a ComfyUI workflow, without ComfyUI or on a server of it.

    Models stay loaded for the next call, as long as folders, device and precision are the same. One call runs at a
    time; others wait.

    Args:
        workflow: a file (API or UI format JSON, or an image that carries either), or such a graph itself.
        settings: values to change, by "NODE.INPUT", such as `{"3.text": "moss", "6.seed": 7}`.
        input_dir: the folder that images are loaded from; `input` by default.
        output_dir: the folder that files are saved in; `output` by default.
        models_dir: the folder of the models, with `checkpoints`, `loras`, ... in it; `models` by default.
        device: "cuda", "cuda:1", "mps" or "cpu"; the best there is by default.
        dtype: "fp16", "bf16" or "fp32"; what suits the model and the device by default.
        progress: called with (node id, value, maximum) when a node begins, (id, 0, 1), and after each of its steps;
            what it raises ends the run.
        engine: the address of a ComfyUI server that runs it instead, such as "http://127.0.0.1:8188"; folders of
            models, devices and precision are its own then.
        replace: replace the nodes of other packs that have a counterpart, leave out those that have none, and call this
            with a line for each, such as `print`.

    Returns:
        The saved images.

    Raises:
        GraphError: the workflow, a setting or an option is wrong; nothing ran.
        NodeError: a node failed; files that were saved before stay.
        EngineLost: the server cannot be reached, or does not answer as ComfyUI does.
        KeyboardInterrupt: Ctrl-C; files that were saved before stay.
    """
    if is_server(engine):
        if replace is not None:
            raise GraphError(["replace needs the nodes of this host; leave it out with engine"])
        return run_on(str(engine), workflow, settings, input_dir, output_dir, progress)
    with _one_at_a_time:
        started = time.monotonic()
        ready = prepare(
            workflow,
            settings,
            input_dir=input_dir,
            output_dir=output_dir,
            models_dir=models_dir,
            device=device,
            dtype=dtype,
            replace=replace,
        )
        execute(ready, progress)
        return collect(ready, started)


def run_on(
    server: str,
    workflow: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    input_dir: str | Path | None = None,
    output_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Run a workflow on a ComfyUI server, and save its files here.

    Args, Raises: as for `run`.
    """
    from .engines import remote
    from .engines.server import ServerEngine

    started = time.monotonic()
    found = _read(workflow)
    engine = ServerEngine(server)
    try:
        task = remote.task_of(engine, found, _plain(settings or {}, "the settings"), os.fspath(input_dir or "input"))
        made = engine.run(task, progress)
    finally:
        engine.close()
    return Results(*remote.save(made, os.path.abspath(output_dir or "output")), round(time.monotonic() - started, 3))


def prepare(
    workflow: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    input_dir: str | Path | None = None,
    output_dir: str | Path | None = None,
    models_dir: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    any_model: bool = False,
    replace: Callable[[str], None] | None = None,
) -> Run:
    """Read, change and check a workflow, and set folders and device for it.

    Args, Raises: as for `run`; with `any_model` every file that it names is taken to be there.
    """
    # The file is read before the slow imports, so that a wrong name shows at once.
    name = "the workflow" if isinstance(workflow, Mapping) else str(workflow)
    with reading(name):
        found = _read(workflow)
    from ..host import folder_paths
    from ..host.graph.execution import Run
    from ..host.graph.workflow import to_prompt
    from . import registry
    from .assignments import apply
    from .checking import validate

    folders = [None if each is None else os.fspath(each) for each in (models_dir, input_dir, output_dir)]
    folder_paths.configure(*folders)
    # A file that has a default's name by chance does no harm where nothing is read from there.
    chosen = ["output", *(["models"] if models_dir else []), *(["input"] if input_dir else [])]
    _check(lambda: folder_paths.check_folders(*chosen))
    info = registry.object_info()
    with reading(name):
        if replace is None:
            found.prompt = to_prompt(found, info)
        else:
            found = _moved_in(found, info, replace)
        found = apply(_plain(settings or {}, "the settings"), found, info)
        prompt, outputs = validate(found.prompt, info, any_model)
    choose_device(device, dtype)
    where = (folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory())
    return Run(prompt, outputs, info, _cache((*where, device, dtype)), extra_pnginfo=found.extra_pnginfo)


def _moved_in(found: Workflow, info: ObjectInfo, tell: Callable[[str], None]) -> Workflow:
    """Return a workflow whose nodes of other packs are replaced; its UI-format graph, which shows them, is left out."""
    from ..host.graph.documents import Workflow
    from ..host.graph.workflow import to_prompt
    from .moving_in import readable, replace

    prompt, lines = replace(to_prompt(found, readable(info)), info)
    for line in lines:
        tell(line)
    return Workflow(prompt, None if lines else found.ui_graph)


def execute(ready: Run, progress: Progress | None = None, keep: Callable[[Run], None] | None = None) -> None:
    """Run what `prepare` returned; what was made until an error stays in it.

    Args:
        progress: as for `run`.
        keep: leaves in the cache of the run what the next one may use; what nodes without links made by default.

    Raises:
        NodeError: a node failed.
        KeyboardInterrupt: the run was interrupted.
        Exception: what `progress` raised.
    """
    from ..host.progress import InterruptProcessingException, set_progress_bar_global_hook

    current = ""

    def tell(value: float, maximum: float, preview: Any = None) -> None:
        try:
            if progress is not None:
                progress(current, value, maximum)
        except Exception as error:
            raise _ProgressFailed(error) from error

    def on_node(node_id: str, class_type: str) -> None:
        nonlocal current
        current = node_id
        tell(0, 1)

    ready.on_node = on_node
    set_progress_bar_global_hook(tell)
    try:
        ready.start()
    except _ProgressFailed as failed:
        raise failed.error from None
    except InterruptProcessingException:
        raise KeyboardInterrupt from None
    except KeyboardInterrupt:
        # It may have struck between any two instructions, so nothing that was in use is trusted again.
        ready.cache.entries.clear()
        raise
    finally:
        set_progress_bar_global_hook(None)
        (keep or _keep_what_was_loaded)(ready)


def collect(done: Run, started: float) -> Results:
    """Return what a run made so far; `started` is the time of `time.monotonic` when it began."""
    from ..host.graph.results import results, saved

    return Results(saved(done), results(done), round(time.monotonic() - started, 3))


def _read(workflow: str | Path | Mapping[str, Any]) -> Workflow:
    from ..host.graph.documents import from_document
    from ..host.graph.workflow import read

    if isinstance(workflow, Mapping):
        return from_document(_plain(workflow, "the workflow"))
    return read(workflow)


def _plain(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy that JSON can hold: numbers of numpy become Python's, paths become text.

    Raises:
        GraphError: it holds anything else.
    """
    try:
        return json.loads(json.dumps(dict(document), default=_plain_value))
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError([f"{name}: {error}; expected text, numbers, lists and dictionaries as in JSON"]) from error


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"found a {type(value).__name__}")


def choose_device(device: str | None, dtype: str | None) -> None:
    """Set where models run, and with how many bits.

    Raises:
        GraphError: there is no such device or precision.
    """
    from ..host.runtime import devices

    _check(lambda: devices.configure(device, dtype))


def _check(option: Callable[[], None]) -> None:
    try:
        option()
    except ValueError as error:
        raise GraphError([str(error)]) from error


def _cache(about: tuple[Any, ...]) -> Cache:
    """Return what the call before left, where it had the same folders, device and precision."""
    from ..host.graph.execution import Cache

    kept = _caches.pop(about, None) or Cache()
    _caches.clear()
    _caches[about] = kept
    return kept


def _keep_what_was_loaded(done: Run) -> None:
    """Leave in the cache what nodes without links made, such as models, in this call or before it was stopped.

    The others run again in the next call: files are saved into its folder, and every node's texts are told once more.
    """
    loaded = {id(entry) for entry in done.loaded().values()}
    passing = {id(entry) for entry in done.entries.values()} - loaded
    done.cache.entries = {key: entry for key, entry in done.cache.entries.items() if id(entry) not in passing}


def _open(path: str) -> Image.Image:
    from PIL import Image

    from ..host.images.loading import readable_formats

    image = Image.open(path, formats=readable_formats())
    image.load()
    return image
