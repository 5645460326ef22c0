"""Stands for `folder_paths`: where models, inputs and outputs lie.

A model is a file or, beyond ComfyUI, a diffusers folder (one with a `model_index.json` or a `config.json`).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator

supported_pt_extensions = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

MODEL_FOLDERS = {
    "checkpoints": ["checkpoints"],
    "loras": ["loras"],
    "vae": ["vae"],
    "text_encoders": ["text_encoders", "clip"],
    "diffusion_models": ["unet", "diffusion_models"],
    "clip_vision": ["clip_vision"],
    "controlnet": ["controlnet", "t2i_adapter"],
    "embeddings": ["embeddings"],
    "upscale_models": ["upscale_models"],
    "safety_checker": ["safety_checker"],
    "background_removal": ["background_removal"],
    "ipadapter": ["ipadapter"],
    "text_generation": ["text_generation"],
}
LEGACY_NAMES = {"unet": "diffusion_models", "clip": "text_encoders"}
DIFFUSERS_MARKS = {"model_index.json", "config.json"}

models_dir = ""
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}
_input = _output = _temp = ""


def configure(
    models_dir: str | None = None,
    input_dir: str | None = None,
    output_dir: str | None = None,
    temp_dir: str | None = None,
) -> None:
    """Set the folders. One left out is `models`, `input` or `output` in the working folder; previews get a new one."""
    global _input, _output, _temp
    _set_models_dir(os.path.abspath(models_dir or "models"))
    _input = os.path.abspath(input_dir or "input")
    _output = os.path.abspath(output_dir or "output")
    _temp = os.path.abspath(temp_dir) if temp_dir else ""


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
    """The folder that images are loaded from."""
    return _input


def get_output_directory() -> str:
    """The folder that results are saved in."""
    return _output


def get_temp_directory() -> str:
    """The folder of previews, made when it is first asked for."""
    global _temp
    if not _temp:
        _temp = tempfile.mkdtemp(prefix="tessera-")
    return _temp


def get_directory_by_type(type_name: str) -> str | None:
    """The folder of "input", "output" or "temp"; None for another word."""
    folders = {"input": get_input_directory, "output": get_output_directory, "temp": get_temp_directory}
    return folders[type_name]() if type_name in folders else None


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Look for models of one kind in one more folder; `is_default` asks it first."""
    paths, _ = folder_names_and_paths.setdefault(LEGACY_NAMES.get(folder_name, folder_name), ([], set()))
    if full_folder_path in paths:
        paths.remove(full_folder_path)
    paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """The folders that hold models of one kind."""
    return list(folder_names_and_paths[LEGACY_NAMES.get(folder_name, folder_name)][0])


def get_filename_list(folder_name: str) -> list[str]:
    """The models of one kind: sorted paths below their folders."""
    paths, extensions = folder_names_and_paths[LEGACY_NAMES.get(folder_name, folder_name)]
    return sorted({os.path.relpath(found, path) for path in paths for found in _models_below(path, extensions)})


def _models_below(root: str, extensions: set[str]) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if folder != root and DIFFUSERS_MARKS & set(names):
            subfolders.clear()
            yield folder
            continue
        subfolders[:] = [name for name in subfolders if name != ".git"]
        yield from (os.path.join(folder, name) for name in filter_files_extensions(names, extensions))


def filter_files_extensions(files: Iterable[str], extensions: Iterable[str]) -> list[str]:
    """The files that end in one of `extensions`, sorted; all of them where none is given."""
    kept = set(extensions)
    return sorted(name for name in files if not kept or os.path.splitext(name)[-1].lower() in kept)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """Where a model lies, or None. The name cannot leave the model folders."""
    inside = os.path.relpath(os.path.join("/", filename), "/")
    for folder in get_folder_paths(folder_name):
        path = os.path.join(folder, inside)
        if os.path.isfile(path) or any(os.path.isfile(os.path.join(path, mark)) for mark in DIFFUSERS_MARKS):
            return path
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """Where a model lies.

    Raises:
        FileNotFoundError: it lies in none of the folders; the message names them.
    """
    path = get_full_path(folder_name, filename)
    if path is None:
        folders = ", ".join(get_folder_paths(folder_name))
        raise FileNotFoundError(f"{filename!r} is not among the {folder_name} models; put it into {folders}")
    return path


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Split "moss.png [output]" into the name and the folder it means; without a mark the folder is None."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name.removesuffix(f"[{kind}]").rstrip(), get_directory_by_type(kind)
    return name, None


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """Where an input file lies, or would lie.

    Raises:
        ValueError: the name leads out of the folder.
    """
    name, folder = annotated_filepath(name)
    folder = folder or default_dir or get_input_directory()
    path = os.path.abspath(os.path.join(folder, name))
    if not is_within_directory(folder, path):
        raise ValueError(f"{name!r} leads out of {folder}; name a file inside it")
    return path


def exists_annotated_filepath(name: str) -> bool:
    """Whether an input file is there, inside its folder."""
    name, folder = annotated_filepath(name)
    folder = folder or get_input_directory()
    path = os.path.join(folder, name)
    return is_within_directory(folder, path) and os.path.exists(path)


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Where the next picture of a series goes.

    The prefix may hold %width%, %height%, %year%, %month%, %day%, %hour%, %minute% and %second%.

    Returns:
        The folder (made when it is not there), the name's stem, the next number, the subfolder, the prefix filled in.

    Raises:
        ValueError: the prefix leads out of the folder.
    """
    folder, stem, subfolder, prefix = split_prefix(filename_prefix, output_dir, image_width, image_height)
    os.makedirs(folder, exist_ok=True)
    return folder, stem, _next_number(folder, stem), subfolder, prefix


def split_prefix(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, str, str]:
    """The folder, the name's stem, the subfolder and the filled-in prefix; nothing is made.

    Raises:
        ValueError: the prefix leads out of the folder.
    """
    prefix = _fill_in(filename_prefix, image_width, image_height)
    subfolder, stem = os.path.split(os.path.normpath(prefix))
    folder = os.path.join(output_dir, subfolder)
    if not is_within_directory(output_dir, folder) or os.path.isabs(prefix) or stem in ("", ".", "..") or "\0" in stem:
        raise ValueError(
            f"filename_prefix {filename_prefix!r} leads out of {output_dir}; use a name, or a path below that folder"
        )
    return folder, stem, subfolder, prefix


def _fill_in(prefix: str, width: int, height: int) -> str:
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
