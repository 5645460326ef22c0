"""Folders of models end, whatever links are in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tessera.host import folder_paths


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "models" / "checkpoints"
    (folder / "sd" / "deep").mkdir(parents=True)
    (folder / "sd" / "deep" / "a.safetensors").touch()
    folder_paths.configure(models_dir=str(tmp_path / "models"))
    yield folder
    folder_paths.configure()


def test_links_to_a_folder_around_them_are_not_followed(checkpoints: Path, tmp_path: Path) -> None:
    for number, target in enumerate([checkpoints, checkpoints / "sd", tmp_path / "models", Path("/"), Path(".")]):
        (checkpoints / "sd" / f"link{number}").symlink_to(target)
        (checkpoints / f"other{number}").symlink_to(".")
    assert folder_paths.get_filename_list("checkpoints") == ["sd/deep/a.safetensors"]


def test_a_folder_keeps_its_other_names(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.safetensors").touch()
    for name in ("one", "two"):
        (checkpoints / name).symlink_to(tmp_path / "elsewhere")
    found = folder_paths.get_filename_list("checkpoints")
    assert found == ["one/b.safetensors", "sd/deep/a.safetensors", "two/b.safetensors"]


def test_folders_that_link_to_each_other_end(checkpoints: Path, tmp_path: Path) -> None:
    rooms = [tmp_path / "rooms" / str(number) for number in range(9)]
    for room in rooms:
        room.mkdir(parents=True)
        (room / "c.safetensors").touch()
    for room in rooms:
        for other in rooms:
            (room / f"to{other.name}").symlink_to(other)
    (checkpoints / "rooms").symlink_to(tmp_path / "rooms")
    found = folder_paths.get_filename_list("checkpoints")
    assert {f"rooms/{room.name}/c.safetensors" for room in rooms} <= set(found)
    assert len(found) <= 1 + len(rooms) * folder_paths.MOST_NAMES
