"""Drop-in replacement for `folder_paths`: the folders of models, inputs and outputs.

A model is a file or, beyond ComfyUI, a diffusers folder (one with a `model_index.json` or a `config.json`).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..files.temporary import own_folder

supported_pt_extensions = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
"""Suffixes of model files, under ComfyUI's name."""

MODEL_FOLDERS = {
    "checkpoints": ["checkpoints"],
    "loras": ["loras"],
    "vae": ["vae"],
    "text_encoders": ["text_encoders", "clip"],
    "diffusion_models": ["unet", "diffusion_models"],
    "clip_vision": ["clip_vision"],
    "controlnet": ["controlnet", "t2i_adapter"],
    "style_models": ["style_models"],
    "embeddings": ["embeddings"],
    "upscale_models": ["upscale_models"],
    "safety_checker": ["safety_checker"],
    "background_removal": ["background_removal"],
    "ipadapter": ["ipadapter"],
    "text_generation": ["text_generation"],
    "controlnet_aux": ["controlnet_aux"],
}
"""Folders by kind of model, below the models folder; the first one is searched first."""

LEGACY_NAMES = {"unet": "diffusion_models", "clip": "text_encoders"}
"""Kinds of models by their names in old workflows."""

DIFFUSERS_CONFIGS = {"model_index.json", "config.json"}
"""A folder with one of these files is a model."""

DRIVE = re.compile(r"[A-Za-z]:")
"""How a path begins that names a drive of Windows."""

MOST_NAMES = 16
"""Paths to one folder that a walk follows; folders that link to each other have more than a walk could end."""

LONGEST_NAME = 240
"""Longest name of a file or folder in bytes: file systems allow 255, and a number and a suffix follow."""

models_dir = ""
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}
_input = _output = _temp = ""


def configure(
    models_dir: str | None = None,
    input_dir: str | None = None,
    output_dir: str | None = None,
    temp_dir: str | None = None,
) -> None:
    """Set the folders.

    Args:
        models_dir: `models` in the working folder by default.
        input_dir: `input` in the working folder by default.
        output_dir: `output` in the working folder by default.
        temp_dir: of previews; by default a folder of this process, made when it is first asked for and removed at its
            end.
    """
    global _input, _output, _temp
    _set_models_dir(os.path.abspath(models_dir or "models"))
    _input = os.path.abspath(input_dir or "input")
    _output = os.path.abspath(output_dir or "output")
    _temp = os.path.abspath(temp_dir) if temp_dir else ""


def check_folders(*kinds: str) -> None:
    """Check the "models", "input" or "output" folder, which need not exist.

    Raises:
        ValueError: one is a file, is in a file, or has a name that no folder can have.
    """
    folders = {"models": models_dir, "input": _input, "output": _output}
    for kind, folder in ((kind, folders[kind]) for kind in kinds):
        wrong = _no_folder(Path(folder))
        if wrong:
            raise ValueError(f"the {kind} folder {folder[:LONGEST_NAME]}: {wrong}; name a folder")


def _no_folder(path: Path) -> str:
    """Return why a path cannot be a folder; nothing where it is one or can be made."""
    if max(map(byte_count, path.parts)) > 255:
        return "a part of it has more than the 255 bytes that file systems allow"
    for place in (path, *path.parents):
        try:
            return "" if stat.S_ISDIR(os.stat(place).st_mode) else f"{place} is not a folder"
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return str(getattr(error, "strerror", None) or error).lower()
    return ""


def byte_count(name: str) -> int:
    """Return how many bytes a name has in a file system."""
    return len(name.encode("utf-8", "surrogatepass"))


def _set_models_dir(folder: str) -> None:
    global models_dir
    models_dir = folder
    folder_names_and_paths.clear()
    for name, below in MODEL_FOLDERS.items():
        folder_names_and_paths[name] = ([os.path.join(folder, each) for each in below], supported_pt_extensions)


def is_within_directory(directory: str, target: str) -> bool:
    """Return whether `target` is in `directory`, links followed."""
    try:
        directory, target = os.path.realpath(directory), os.path.realpath(target)
        return os.path.commonpath((directory, target)) == directory
    except ValueError:  # A NUL in the name, or another drive on Windows.
        return False


def get_input_directory() -> str:
    """Return the folder that images are loaded from."""
    return _input


def get_output_directory() -> str:
    """Return the folder that results are saved in."""
    return _output


def get_temp_directory() -> str:
    """Return the folder of previews, made on the first call."""
    return _temp or own_folder()


def get_directory_by_type(type_name: str) -> str | None:
    """Return the folder of "input", "output" or "temp"; None for any other name."""
    folders = {"input": get_input_directory, "output": get_output_directory, "temp": get_temp_directory}
    return folders[type_name]() if type_name in folders else None


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Search one more folder for models of one kind, before the others if `is_default`."""
    paths, _ = folder_names_and_paths.setdefault(LEGACY_NAMES.get(folder_name, folder_name), ([], set()))
    if full_folder_path in paths:
        paths.remove(full_folder_path)
    paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """Return the folders with models of one kind."""
    return list(folder_names_and_paths[LEGACY_NAMES.get(folder_name, folder_name)][0])


class FileNames(list[str]):
    """Names of files to choose from, which are others on another machine."""


def get_filename_list(folder_name: str) -> FileNames:
    """Return the models of one kind, as sorted paths relative to their folders."""
    paths, extensions = folder_names_and_paths[LEGACY_NAMES.get(folder_name, folder_name)]
    return FileNames(sorted({os.path.relpath(f, path) for path in paths for f in _models_below(path, extensions)}))


def _models_below(root: str, extensions: set[str]) -> Iterator[str]:
    seen: Counter[Path] = Counter()
    # Breadth first, so that the shortest of a folder's names are among those that are followed.
    waiting = deque([(root, frozenset(Path(os.path.realpath(root)).parents))])
    while waiting:
        folder, outer = waiting.popleft()
        real = Path(os.path.realpath(folder))
        seen[real] += 1
        if real in outer or seen[real] > MOST_NAMES:
            continue
        _, subfolders, names = next(os.walk(folder), (folder, [], []))
        if folder != root and DIFFUSERS_CONFIGS & set(names):
            yield folder
            continue
        waiting.extend((os.path.join(folder, name), outer | {real}) for name in subfolders if name != ".git")
        yield from (os.path.join(folder, name) for name in filter_files_extensions(names, extensions))


def filter_files_extensions(files: Iterable[str], extensions: Iterable[str]) -> list[str]:
    """Return the files with one of the `extensions`, sorted; all files if there are none."""
    kept = set(extensions)
    return sorted(name for name in files if not kept or os.path.splitext(name)[-1].lower() in kept)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """Return the path of a model, or None. The name cannot lead out of the model folders."""
    for name in _spellings(filename):
        inside = os.path.relpath(os.path.join("/", name), "/")
        for folder in get_folder_paths(folder_name):
            path = os.path.join(folder, inside)
            if os.path.isfile(path) or any(os.path.isfile(os.path.join(path, each)) for each in DIFFUSERS_CONFIGS):
                return path
    return None


def _spellings(name: str) -> list[str]:
    """Return a file's name as it is, and as Windows means it."""
    return list(dict.fromkeys((name, name.replace("\\", "/"))))


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """Return the path of a model.

    Raises:
        FileNotFoundError: it is in none of the folders; the message names them.
    """
    path = get_full_path(folder_name, filename)
    if path is None:
        folders = ", ".join(get_folder_paths(folder_name))
        raise FileNotFoundError(f"{filename!r} is not among the {folder_name} models; put it into {folders}")
    return path


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Split "moss.png [output]" into the name and the path of that folder; None for a plain name."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name.removesuffix(f"[{kind}]").rstrip(), get_directory_by_type(kind)
    return name, None


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """Return the path of an input file, which need not exist.

    Raises:
        ValueError: the name leads out of the folder.
    """
    name, folder = annotated_filepath(name)
    folder = folder or default_dir or get_input_directory()
    paths = [os.path.abspath(os.path.join(folder, each)) for each in _spellings(name)]
    path = next((each for each in paths if os.path.exists(each)), paths[-1])
    if not is_within_directory(folder, path):
        raise ValueError(f"{name!r} leads out of {folder}; name a file inside it")
    return path


def exists_annotated_filepath(name: str) -> bool:
    """Return whether an input file exists, inside its folder."""
    try:
        return os.path.exists(get_annotated_filepath(name))
    except ValueError:
        return False


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Return where the next image of a series is saved; `create_series` of `files` takes the number that is free then.

    The prefix may contain %width%, %height%, %year%, %month%, %day%, %hour%, %minute% and %second%, and folders with
    slashes of either kind.

    Returns:
        The folder (made if missing), the stem of the file name, the next number, the subfolder, the expanded prefix.

    Raises:
        ValueError: the prefix leads out of the folder.
    """
    folder, stem, subfolder, prefix = split_prefix(filename_prefix, output_dir, image_width, image_height)
    os.makedirs(folder, exist_ok=True)
    return folder, stem, _next_number(folder, stem), subfolder, prefix


def split_prefix(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, str, str]:
    """Return the folder, the stem of the file name, the subfolder and the expanded prefix; make nothing.

    Raises:
        ValueError: the prefix leads out of the folder.
    """
    # Workflows from Windows have back slashes, and "C:" where a path does not begin in the output folder.
    prefix = _expand(filename_prefix, image_width, image_height).replace("\\", "/")
    longest = max(map(byte_count, prefix.split("/")))
    if longest > LONGEST_NAME:
        raise ValueError(f"filename_prefix has a part of {longest} bytes; expected {LONGEST_NAME} at most; shorten it")
    subfolder, stem = os.path.split(os.path.normpath(prefix))
    folder = os.path.join(output_dir, subfolder)
    absolute = os.path.isabs(prefix) or bool(DRIVE.match(prefix))
    if absolute or not is_within_directory(output_dir, folder) or stem in ("", ".", "..") or "\0" in stem:
        raise ValueError(
            f"filename_prefix {filename_prefix!r} names no file in {output_dir}; use a name or a path below that folder"
        )
    return folder, stem, subfolder, prefix


def _expand(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    values = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    parts = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    for name, value in (values | {name: f"{part:02}" for name, part in parts.items()}).items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _next_number(folder: str, stem: str) -> int:
    start = f"{os.path.normcase(stem)}_"
    taken = [0]
    for name in os.listdir(folder):
        digits = name[len(start) :].split(".")[0].split("_")[0]
        if os.path.normcase(name).startswith(start) and digits.isdecimal():
            taken.append(int(digits))
    return max(taken) + 1


configure()
