"""Files of tensors are read as the library reads them, and never from a mapping that could end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naming import naming
from safetensors import SafetensorError
from safetensors.torch import load, save, save_file
from tessera.weights import safetensors_files
from tessera.weights.files import BrokenFileError, read_described, read_safetensors, read_shapes

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16]
DTYPES += [torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


def test_tensors_of_every_type_and_shape_are_the_librarys(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    shapes = [(), (0,), (3,), (2, 0, 4), (2, 3, 5)]
    tensors = {f"{dtype} {shape}": torch.randint(0, 2, shape).to(dtype) for dtype in DTYPES for shape in shapes}
    save_file(tensors, path, {"a": "b"})
    found, about = read_described(path)
    assert about == {"a": "b"}
    assert found.keys() == tensors.keys()
    assert read_shapes(path) == {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype and found[key].shape == tensor.shape
        assert found[key].float().equal(tensor.float())


def test_half_precision_is_widened_where_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "halves.safetensors"
    tensors = {str(dtype): torch.arange(7).to(dtype) for dtype in DTYPES}
    save_file(tensors, path)
    for key, tensor in read_safetensors(path, widen=True).items():
        halves = tensors[key].dtype in (torch.float16, torch.bfloat16)
        assert tensor.dtype == (torch.float32 if halves else tensors[key].dtype)
        assert tensor.float().equal(tensors[key].float())


def test_a_file_that_is_cut_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(200_000), "b": torch.zeros(200_000)}, path)
    read = safetensors_files.read_header

    def cut_then_read(file: Any) -> Any:
        header = read(file)
        with path.open("r+b") as other:
            other.truncate(500_000)
        return header

    monkeypatch.setattr(safetensors_files, "read_header", cut_then_read)
    with pytest.raises(BrokenFileError, match="cut.safetensors cannot be read; download it again .*cut short"):
        read_safetensors(path)


def test_what_was_read_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "gone.safetensors"
    save_file({"a": torch.arange(300_000)}, path)
    found = read_safetensors(path)
    path.write_bytes(b"")
    assert found["a"].equal(torch.arange(300_000))


def test_a_file_without_tensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({}))
    with pytest.raises(BrokenFileError, match=naming("a.safetensors", "no tensors")):
        read_safetensors(path)


WHOLE = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4)})
LENGTH = int.from_bytes(WHOLE[:8], "little")
HEADER = json.loads(WHOLE[8 : 8 + LENGTH])

numbers = st.sampled_from([-1, 0, 1, 2, 3, 4, 24, 32, 56, 57, 2**63, 2**70, 1.5, True, None, "4"])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I64", "F4", 3, None]),
        "shape": st.lists(numbers, max_size=3) | st.sampled_from([[2, 3], [4], 6, None]),
        "data_offsets": st.lists(numbers, max_size=3) | st.sampled_from([[0, 24], [24, 56], None]),
    }
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), entries | st.just(HEADER["a"])))
def test_headers_that_the_library_refuses_are_refused(tmp_path_factory: Any, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + WHOLE[8 + LENGTH :]
    path = tmp_path_factory.mktemp("headers") / "a.safetensors"
    path.write_bytes(content)
    try:
        expected = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError):
        with pytest.raises(BrokenFileError):
            read_safetensors(path)
    else:
        assert read_safetensors(path).keys() == expected.keys()
