"""Prompts over HTTP: checked, queued, run, told of, remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graph_nodes import CALLS, CLASSES, node
from serving import Client, answer, done, heard, listening, post, run_prompt, serve
from tessera.host.schema import io

SUM = {
    "1": node("Number", value=4),
    "2": node("Add", a=["1", 0], b=["1", 0]),
    "0": node("Show", value=["2", 0]),
}


def test_a_prompt_runs_and_is_remembered(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        workflow = {"id": "w", "nodes": []}
        extra = {"extra_pnginfo": {"workflow": workflow}, "api_key_comfy_org": "secret"}
        entry = await run_prompt(client, SUM, client_id="me", extra_data=extra)
        number, prompt_id, prompt, extra_data, outputs = entry["prompt"]
        assert (number, prompt, outputs) == (0, SUM, ["0"])
        assert extra_data.pop("create_time") > 1.6e12
        assert extra_data == {"extra_pnginfo": {"workflow": workflow}, "client_id": "me"}
        assert entry["outputs"] == {"0": {"text": ["8"]}}
        assert entry["meta"]["0"] == {"node_id": "0", "display_node": "0", "parent_node": None, "real_node_id": "0"}
        assert entry["status"]["status_str"] == "success"
        assert entry["status"]["completed"] is True
        assert [event for event, _ in entry["status"]["messages"]] == [
            "execution_start",
            "execution_cached",
            "execution_success",
        ]
        assert await answer(client, "GET", "/api/history/unknown") == (200, {})
        assert list((await answer(client, "GET", "/api/history?max_items=1"))[1]) == [prompt_id]

    serve(tmp_path, test)


def test_messages_are_comfyuis(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with listening(client, "me") as socket, listening(client, "other") as bystander:
            _, told = await post(client, SUM, client_id="me")
            prompt_id = told["prompt_id"]
            messages, _ = await heard(socket, prompt_id)
            assert prompt_id in (await answer(client, "GET", f"/history/{prompt_id}"))[1], "before its end is told"
            kinds = [(each["type"], each["data"].get("node")) for each in messages if "progress" not in each["type"]]
            assert kinds == [
                ("execution_start", None),
                ("execution_cached", None),
                ("executing", "1"),
                ("executing", "2"),
                ("executing", "0"),
                ("executed", "0"),
                ("execution_success", None),
                ("executing", None),
            ]
            assert all(each["data"]["prompt_id"] == prompt_id for each in messages)
            executed = next(each["data"] for each in messages if each["type"] == "executed")
            about = {"node": "0", "display_node": "0", "output": {"text": ["8"]}, "prompt_id": prompt_id}
            assert executed == about
            states = [each["data"]["nodes"] for each in messages if each["type"] == "progress_state"]
            assert [(list(state), [each["state"] for each in state.values()]) for state in states][-1] == (
                ["1", "2", "0"],
                ["finished"] * 3,
            )
            assert states[0]["1"] == {
                "value": 0,
                "max": 1,
                "state": "running",
                "prompt_id": prompt_id,
                "node_id": "1",
                "display_node_id": "1",
                "parent_node_id": None,
                "real_node_id": "1",
            }
            await bystander.close()
            assert [each.json()["type"] async for each in bystander] == []

    serve(tmp_path, test)


def test_nodes_whose_inputs_are_the_same_do_not_run_again(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        CALLS.clear()
        await run_prompt(client, SUM)
        async with listening(client, "me") as socket:
            _, told = await post(client, SUM, client_id="me")
            messages, _ = await heard(socket, told["prompt_id"])
        cached = next(each["data"]["nodes"] for each in messages if each["type"] == "execution_cached")
        assert sorted(cached) == ["0", "1", "2"]
        assert not [each for each in messages if each["type"] == "executing" and each["data"]["node"]]
        executed = [each["data"] for each in messages if each["type"] == "executed"]
        assert [(each["node"], each["output"]) for each in executed] == [("0", {"text": ["8"]})]
        assert (await done(client, told["prompt_id"]))["outputs"] == {"0": {"text": ["8"]}}
        assert CALLS == ["1", "Add"]

    serve(tmp_path, test)


class Load(io.ComfyNode):
    """Loads what takes long to load."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        name = io.Combo.Input("name", options=[f"model {number}" for number in range(9)])
        return io.Schema(node_id="Load", inputs=[name], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        CALLS.append(name)
        return io.NodeOutput(object())


def test_models_are_kept_while_other_prompts_run(tmp_path: Path) -> None:
    def shown(number: int) -> dict[str, Any]:
        return {"1": node("Load", name=f"model {number}"), "0": node("Show", value=["1", 0])}

    async def test(client: Client) -> None:
        CALLS.clear()
        for prompt in (shown(0), SUM, shown(0), shown(1), shown(0), shown(1)):
            await run_prompt(client, prompt)
        assert CALLS == ["model 0", "1", "Add", "model 1"]
        assert (await answer(client, "POST", "/free", json={"free_memory": True}))[0] == 200
        await run_prompt(client, shown(0))
        assert CALLS[4:] == ["model 0"]
        for number in range(1, 9):
            await run_prompt(client, shown(number))
        await run_prompt(client, shown(0))
        assert CALLS[-1] == "model 0", "not all are kept for ever"

    serve(tmp_path, test, classes=CLASSES | {"Load": Load})


class Quit(io.ComfyNode):
    """Ends its thread."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Quit", inputs=[], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        raise SystemExit("enough")


def test_a_node_that_ends_its_thread_does_not_end_the_server(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        entry = await run_prompt(client, {"1": node("Quit"), "0": node("Show", value=["1", 0])})
        assert entry["status"]["messages"][-1][1]["exception_type"] == "SystemExit"
        assert (await run_prompt(client, SUM))["status"]["completed"]

    serve(tmp_path, test, classes=CLASSES | {"Quit": Quit})


@pytest.mark.parametrize("way", ["value", "bug", "lines"])
def test_a_node_that_fails_is_told_of_in_one_line(tmp_path: Path, way: str) -> None:
    prompt = {"7": node("Broken", way=way), "0": node("Show", value=["7", 0])}

    async def test(client: Client) -> None:
        async with listening(client, "me") as socket:
            _, told = await post(client, prompt, client_id="me")
            messages, _ = await heard(socket, told["prompt_id"])
        error = next(each["data"] for each in messages if each["type"] == "execution_error")
        assert (error["node_id"], error["node_type"], error["executed"]) == ("7", "Broken", [])
        assert error["current_inputs"] == {"way": [way]}
        assert "\n" not in error["exception_message"]
        if way == "value":
            assert error["exception_message"] == "the file is cut short; get it again"
            assert error["exception_type"] == "ValueError"
        assert any("graph_nodes.py" in line for line in error["traceback"])
        entry = await done(client, told["prompt_id"])
        assert entry["status"]["status_str"] == "error"
        assert entry["status"]["messages"][-1][0] == "execution_error"
        assert (await run_prompt(client, SUM))["status"]["completed"], "the next prompt runs"

    serve(tmp_path, test)


def test_what_is_right_of_a_prompt_runs_and_the_rest_is_told(tmp_path: Path) -> None:
    prompt = SUM | {"5": node("Number", value=99), "6": node("Show", value=["5", 0])}

    async def test(client: Client) -> None:
        status, told = await post(client, prompt)
        assert status == 200
        assert list(told["node_errors"]) == ["5"]
        assert told["node_errors"]["5"]["dependent_outputs"] == ["6"]
        entry = await done(client, told["prompt_id"])
        assert (entry["prompt"][4], list(entry["outputs"])) == (["0"], ["0"])
        only = await run_prompt(client, prompt, partial_execution_targets=["0"])
        assert only["prompt"][4] == ["0"]

    serve(tmp_path, test)


def test_a_part_of_a_prompt_runs_and_the_rest_stays_cached(tmp_path: Path) -> None:
    """Also where values become the type of their input first, as "7" becomes 7."""
    prompt = SUM | {"5": node("Number", value="7"), "6": node("Show", value=["5", 0])}

    async def test(client: Client) -> None:
        await run_prompt(client, prompt)
        CALLS.clear()
        for targets in (["6"], ["0"], None):
            entry = await run_prompt(client, prompt, partial_execution_targets=targets)
            assert entry["prompt"][4] == (targets or ["0", "6"])
        assert not CALLS

    serve(tmp_path, test)


@pytest.mark.parametrize("link", [7, ["77", 0]], ids=["unlinked", "linked to nothing"])
def test_what_no_output_needs_any_more_stays_cached(tmp_path: Path, link: Any) -> None:
    """A node is often unlinked for one prompt, to see what it does."""
    prompt = SUM | {"5": node("Number", value="7"), "6": node("Show", value=["5", 0])}

    async def test(client: Client) -> None:
        await run_prompt(client, prompt)
        CALLS.clear()
        for value in (link, ["5", 0]):
            await run_prompt(client, prompt | {"6": node("Show", value=value)})
        assert not CALLS

    serve(tmp_path, test)


WRONG = {
    "required_input_missing": (node("Number"), "value", "value"),
    "invalid_input_type": (node("Number", value="many"), "value", "value, many, invalid literal"),
    "value_smaller_than_min": (node("Number", value=-1), "value", "value"),
    "value_bigger_than_max": (node("Number", value=11), "value", "value"),
    "value_not_in_list": (
        node("Number", value=1, colour="gren"),
        "colour",
        "colour: 'gren' not in ['red', 'green', 'blue']",
    ),
    "return_type_mismatch": (
        node("Number", value=["8", 0]),
        "value",
        "value, received_type(IMAGE) mismatch input_type(INT)",
    ),
    "bad_linked_input": (node("Number", value=["8", 0, 0]), "value", "value"),
    "custom_validation_failed": (node("Even", value=3), "value", "value - 3 is odd; set an even number"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_node_is_told_as_comfyui_tells_it(tmp_path: Path, kind: str) -> None:
    wrong, name, details = WRONG[kind]
    prompt = {"1": wrong, "8": node("Paint", batch=1), "0": node("Show", value=["1", 0])}

    async def test(client: Client) -> None:
        status, told = await post(client, prompt)
        assert status == 400
        assert told["error"]["type"] == "prompt_outputs_failed_validation"
        found = told["node_errors"]["1"]
        assert (found["class_type"], found["dependent_outputs"]) == (wrong["class_type"], ["0"])
        (error,) = found["errors"]
        assert error["type"] == kind
        assert error["details"].startswith(details)
        assert error["extra_info"]["input_name"] == name
        assert error["extra_info"]["line"].startswith("node 1 ")
        assert f"{error['message']}: {error['details']}" == told["error"]["details"]
        assert await answer(client, "GET", "/prompt") == (200, {"exec_info": {"queue_remaining": 0}})

    serve(tmp_path, test)


LOOP = {"1": node("Add", a=["2", 0], b=1), "2": node("Add", a=["1", 0], b=1), "0": node("Show", value=["1", 0])}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "no_prompt"),
        ({"prompt": {}}, "prompt_no_outputs"),
        ({"prompt": {"1": node("Number", value=1)}}, "prompt_no_outputs"),
        ({"prompt": {"1": {"inputs": {}}}}, "missing_node_type"),
        ({"prompt": SUM | {"9": node("Numbr")}}, "missing_node_type"),
        ({"prompt": LOOP}, "prompt_outputs_failed_validation"),
        ({"prompt": SUM, "prompt_id": "mine"}, "invalid_prompt_id"),
        ({"prompt": SUM, "client_id": 7}, "invalid_prompt"),
        ({"prompt": SUM, "extra_data": []}, "invalid_prompt"),
        ({"prompt": SUM, "extra_data": {"extra_pnginfo": "x"}}, "invalid_prompt"),
        ({"prompt": SUM, "number": "first"}, "invalid_prompt"),
        ({"prompt": SUM, "partial_execution_targets": "0"}, "invalid_prompt"),
        ({"prompt": [SUM]}, "invalid_prompt"),
        ({"prompt": {"1": 5}}, "invalid_prompt"),
        ({"prompt": {"1": {"class_type": ["Number"], "inputs": {}}}}, "invalid_prompt"),
        ({"prompt": {"1": {"class_type": "Show", "inputs": []}}}, "invalid_prompt"),
    ],
)
def test_a_wrong_prompt_is_refused(tmp_path: Path, body: Any, kind: str) -> None:
    async def test(client: Client) -> None:
        status, told = await answer(client, "POST", "/api/prompt", json=body)
        assert status == 400
        assert told["error"]["type"] == kind
        assert set(told["error"]) == {"type", "message", "details", "extra_info"}
        if body.get("prompt") is LOOP:
            error = told["node_errors"]["1"]["errors"][0]
            assert error["type"] == "dependency_cycle"
            assert error["extra_info"]["cycle_nodes"] == ["1", "2"]

    serve(tmp_path, test)


def test_the_history_forgets(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        ids = []
        for value in range(4):
            prompt = {"1": node("Number", value=value), "0": node("Show", value=["1", 0])}
            ids.append((await run_prompt(client, prompt))["prompt"][1])
        assert list((await answer(client, "GET", "/history"))[1]) == ids
        assert list((await answer(client, "GET", "/history?max_items=2"))[1]) == ids[2:]
        assert list((await answer(client, "GET", "/history?max_items=2&offset=1"))[1]) == ids[1:3]
        assert (await answer(client, "GET", "/history?max_items=x"))[0] == 400
        await answer(client, "POST", "/history", json={"delete": [ids[0], "unknown"]})
        assert list((await answer(client, "GET", "/history"))[1]) == ids[1:]
        await answer(client, "POST", "/history", json={"clear": True})
        assert (await answer(client, "GET", "/history"))[1] == {}

    serve(tmp_path, test)


def test_jobs_are_the_queue_and_the_history(tmp_path: Path) -> None:
    broken = {"7": node("Broken", way="value"), "0": node("Show", value=["7", 0])}
    image = {"1": node("Paint", batch=1), "2": node("Save", images=["1", 0], filename_prefix="picture")}

    async def test(client: Client) -> None:
        good = (await run_prompt(client, image, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}}))["prompt"][1]
        bad = (await run_prompt(client, broken))["prompt"][1]
        text = (await run_prompt(client, SUM))["prompt"][1]
        _, told = await answer(client, "GET", "/api/jobs?sort_order=asc")
        assert [(job["id"], job["status"]) for job in told["jobs"]] == [
            (good, "completed"),
            (bad, "failed"),
            (text, "completed"),
        ]
        assert told["pagination"] == {"offset": 0, "limit": None, "total": 3, "has_more": False}
        first, second, third = told["jobs"]
        assert (first["outputs_count"], first["workflow_id"]) == (1, "w")
        assert first["preview_output"]["filename"] == "picture_00001_.png"
        assert (first["preview_output"]["nodeId"], first["preview_output"]["mediaType"]) == ("2", "images")
        assert first["execution_end_time"] >= first["execution_start_time"] >= first["create_time"]
        assert second["execution_error"]["exception_message"] == "the file is cut short; get it again"
        assert third["preview_output"] == {"content": "8", "nodeId": "0", "mediaType": "text"}
        _, page = await answer(client, "GET", "/api/jobs?status=completed&limit=1&offset=1&sort_by=execution_duration")
        assert (page["pagination"]["total"], page["pagination"]["has_more"], len(page["jobs"])) == (2, False, 1)
        _, whole = await answer(client, "GET", f"/api/jobs/{good}")
        assert whole["workflow"]["prompt"] == image
        assert whole["outputs"]["2"]["images"][0]["type"] == "output"
        for query in ("status=lost", "sort_by=x", "sort_order=x", "limit=0", "limit=x", "offset=x"):
            assert (await answer(client, "GET", f"/api/jobs?{query}"))[0] == 400
        assert (await answer(client, "GET", "/api/jobs/unknown"))[0] == 404
        assert await answer(client, "POST", f"/api/jobs/{good}/cancel") == (200, {"cancelled": False})

    serve(tmp_path, test)
