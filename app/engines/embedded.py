"""The embedded host of this process as an engine. Models and what nodes made stay for the next prompt."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...files.temporary import short_lived
from ...host.graph.workflow import Prompt
from ...host.schema.object_info import ObjectInfo
from .engine import Made, Progress, Task, only_told

if TYPE_CHECKING:
    from ...host.graph.execution import Run


class EmbeddedEngine:
    """Runs each prompt in temporary folders of its own, so that nothing of another one is seen.

    Args:
        models_dir: the folder of the models; `models` by default.
        input_dir: where `check` looks for input files; `input` by default. A run sees the files of its task alone.
        device, dtype: as for `tessera.run`.

    Raises:
        GraphError: there is no such device or precision.
    """

    is_local = True

    def __init__(
        self,
        models_dir: str | None = None,
        input_dir: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        from ...host.graph.execution import Cache
        from ..api import choose_device

        choose_device(device, dtype)
        self.name = "embedded"
        self.models_dir, self.input_dir = models_dir, input_dir
        self._cache = Cache()
        self._info: ObjectInfo | None = None

    def object_info(self) -> ObjectInfo:
        """Return what is known of the nodes; combo boxes list the files of the first call."""
        from ...host import folder_paths
        from .. import registry

        folder_paths.configure(self.models_dir, self.input_dir)
        if self._info is None:
            self._info = registry.object_info()
        return self._info

    def check(
        self, prompt: Prompt, files: Mapping[str, Path] | None = None, changed: Iterable[str] | None = None
    ) -> Prompt:
        """Return the prompt with converted values; files from elsewhere count as being in the input folder."""
        from ...host import folder_paths
        from ..checking import validate, validate_again

        info = self.object_info()
        with _seen(files or {}, folder_paths.get_input_directory()) as inputs:
            folder_paths.configure(self.models_dir, inputs)
            return validate(prompt, info)[0] if changed is None else validate_again(prompt, changed, info)

    def run(self, task: Task, progress: Progress | None = None) -> Made:
        """Run a checked prompt."""
        from ...host import folder_paths
        from ...host.graph.execution import Run
        from ...host.graph.results import results, saved
        from ..api import execute

        info = self.object_info()
        with short_lived() as folder:
            inputs, outputs, previews = (os.path.join(folder, name) for name in ("input", "output", "temp"))
            stage(Path(inputs), task.files)
            folder_paths.configure(self.models_dir, inputs, outputs, previews)
            ready = Run(task.prompt, task.outputs, info, self._cache, extra_pnginfo=task.extra_pnginfo)
            execute(ready, progress, _keep_all_but_outputs)
            files = {_below(outputs, path): Path(path).read_bytes() for path in saved(ready)}
            told = results(ready)
            places = {
                _below(outputs, item["path"]): (node_id, kind)
                for node_id, found in told.items()
                for kind, items in found.items()
                for item in items
                if isinstance(item, dict) and str(item.get("path", "")).startswith(outputs + os.sep)
            }
            return Made(files, only_told(told), places)

    def close(self) -> None:
        """Forget the models."""
        self._cache.entries.clear()


def _below(folder: str, path: str) -> str:
    return Path(path).relative_to(folder).as_posix()


def stage(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write input files under the names that a graph has for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def _seen(files: Mapping[str, Path], input_dir: str) -> Iterator[str]:
    """Return a folder that has files under their names: the input folder, or a temporary one."""
    if all(Path(os.path.abspath(path)) == Path(input_dir, name) for name, path in files.items()):
        yield input_dir
        return
    with short_lived() as folder:
        for name, path in files.items():
            place = Path(folder, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)
            except OSError:  # Another file system.
                shutil.copyfile(path, place)
        yield folder


def _keep_all_but_outputs(done: Run) -> None:
    """Leave in the cache what the next prompt may share; what saves or tells something runs again for it."""
    again = {
        id(entry)
        for node_id, entry in done.entries.items()
        if entry.ui or done.object_info[done.prompt[node_id]["class_type"]]["output_node"]
    }
    done.cache.entries = {key: entry for key, entry in done.cache.entries.items() if id(entry) not in again}
