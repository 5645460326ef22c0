"""Tables and their columns: what is read, and what is told of a table that cannot be."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import INFO, node
from naming import naming
from tessera.app.batch import tables
from tessera.app.batch.columns import find_target, value_of
from tessera.app.batch.tables import read_table
from tessera.host.errors import GraphError

GRAPH = {
    "1": node("Seeded", seed=7, steps=3),
    "2": node("Number", value=1, text="moss") | {"_meta": {"title": "Prompt"}},
    "3": node("Number", value=2, on=True) | {"_meta": {"title": "Other"}},
    "4": node("Show", value=["1", 0]),
}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path) -> list[tuple[int, dict[str, Any], str]]:
    return [(row.line, row.values, row.wrong) for row in read_table(path)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_csv_has_the_lines_of_the_file(tmp_path: Path, separator: str, begin: str) -> None:
    content = f'{begin}a,b\r\n1,"two\r\nlines"\r\n\r\n3,"x,y"\r\n4\r\n'
    content = content if separator == "," else content.replace("x,y", "xy").replace(",", separator)
    found = rows(write(tmp_path, "t.csv", content))
    assert [line for line, _, _ in found] == [2, 5, 6]
    assert found[0][1] == {"a": "1", "b": "two\r\nlines"}
    assert found[2][2]


def test_json_lines_say_where_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", '{"a": 1}\n\n[2]\n{"a": "moss"}\n{torn')
    found = list(read_table(path))
    assert [(row.line, row.values, bool(row.wrong)) for row in found] == [
        (1, {"a": 1}, False),
        (3, {}, True),
        (4, {"a": "moss"}, False),
        (5, {}, True),
    ]
    offset, length = found[2].place
    assert path.read_bytes()[offset : offset + length] == b'{"a": "moss"}\n'


@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_an_array_has_the_lines_and_places_of_its_objects(tmp_path: Path, begin: str) -> None:
    path = write(tmp_path, "t.json", begin + '[\n {"a": 1},\n\n {"a":\n  "m\u00f6ss"}, [2], {"a": 3}\n]\n')
    one, two, other, last = read_table(path)
    assert (one.line, two.line, other.line, last.line) == (2, 4, 5, 5)
    assert (one.values, two.values, last.values) == ({"a": 1}, {"a": "m\u00f6ss"}, {"a": 3})
    assert "expected an object" in other.wrong
    content = path.read_bytes()
    for row in (one, two, last):
        offset, length = row.place
        assert json.loads(content[offset : offset + length]) == row.values
    assert rows(write(tmp_path, "empty.json", "[ ]")) == []


def test_parquet_keeps_the_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"a": [1, 2, None], "b": ["moss", "", "fern"], "c": [[1], [2], [3]]}
    parquet.write_table(pa.table({name: columns[name] for name in "ab"}), tmp_path / "t.parquet")
    expected = [(1, {"a": 1, "b": "moss"}, ""), (2, {"a": 2, "b": ""}, ""), (3, {"a": None, "b": "fern"}, "")]
    assert rows(tmp_path / "t.parquet") == expected
    parquet.write_table(pa.table(columns), tmp_path / "lists.parquet")
    assert all("list" in wrong for _, _, wrong in rows(tmp_path / "lists.parquet"))


def test_folder_is_a_table_of_its_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        write(tmp_path, name, b"")
    assert rows(tmp_path) == [(i, {"image": str(tmp_path / name)}, "") for i, name in enumerate(("a.jpg", "b.PNG"), 1)]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("t.csv", b"a\n\xff\xfe\n", ("UTF-8",)),
        ("t.csv", "a,b,a\n1,2,3\n", ("line 1", "a")),
        ("t.csv", "a,\n1,2\n", ("line 1", 2)),
        ("t.csv", 'a\n"' + "x" * (2**20 + 9), ("line 2", 2**20)),
        ("t.csv", "a\n" + "x" * (2**20 + 9), ("line 2", 2**20)),
        ("t.parquet", b"PAR1 and nothing else", ("t.parquet",)),
        ("t.json", '[{"a": 1}\n {"a": 2}]', ("line 1", "JSON")),
        ("t.json", '[{"a": 1},\n {"a"', ("line 2", "JSON")),
        ("t.json", b'[{"a": "\xff"}]', ("UTF-8",)),
        ("t.xlsx", b"PK\x03\x04\x14\0", ("CSV",)),
    ],
)
def test_table_that_cannot_be_read_is_told(
    tmp_path: Path, name: str, content: str | bytes, parts: tuple[object, ...]
) -> None:
    with pytest.raises(GraphError, match=naming(*parts)):
        rows(write(tmp_path, name, content))
    with pytest.raises(GraphError, match=naming("absent.csv")):
        rows(tmp_path / "absent.csv")


def test_long_line_of_json_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_LINE_BYTES", 2**20)
    path = write(tmp_path, "t.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 2**25)
    tracemalloc.start()
    with pytest.raises(GraphError, match=naming("line 2", 2**20)):
        rows(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_rows_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w") as file:
        file.write("a,b\n")
        file.writelines(f"{i},{'x' * 1000}\n" for i in range(20_000))
    tracemalloc.start()
    assert sum(1 for _ in read_table(path)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("column", "setting"),
    [
        ("1.steps", "1.steps"),
        ("prompt", "2.text"),
        ("Prompt", "2.text"),
        ("Prompt.value", "2.value"),
        ("other.on", "3.on"),
        ("seed", "1.seed"),
        ("steps", "1.steps"),
    ],
)
def test_columns_name_inputs(column: str, setting: str) -> None:
    assert find_target(column, GRAPH, INFO).setting == setting


@pytest.mark.parametrize(
    ("column", "parts"), [("sed", ("sed", "1.seed")), ("1.sed", ("1.seed",)), ("value", ("2.value", "3.value"))]
)
def test_column_that_names_none_or_several_is_told(column: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(GraphError, match=naming(*parts)):
        find_target(column, GRAPH, INFO)


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("2.value", "5", 5),
        ("2.weight", "0.25", 0.25),
        ("2.text", "5", "5"),
        ("2.text", '{"a": 1}', '{"a": 1}'),
        ("3.on", "False", False),
        ("3.on", "1", True),
        ("3.colour", "red", "red"),
    ],
)
def test_text_becomes_what_the_input_takes(column: str, text: str, value: Any) -> None:
    target = find_target(column, GRAPH, INFO)
    found = value_of(target, text, True, "Number")
    assert (found, type(found)) == (value, type(value))


def test_text_that_is_no_truth_value_is_told() -> None:
    with pytest.raises(GraphError, match=naming("3", "on", "maybe")):
        value_of(find_target("3.on", GRAPH, INFO), "maybe", True, "Number")


def test_every_kind_of_column_is_refused_or_found() -> None:
    for names in itertools.product(["1", "9", "", "Prompt"], ["seed", "text", "", "."]):
        try:
            assert find_target(".".join(names), GRAPH, INFO).node_id in GRAPH
        except GraphError as error:
            assert len(error.lines) == 1
