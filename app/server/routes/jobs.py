"""Prompts as jobs: the same queue and history in one list, with a status each."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..jobs import Entry, Job
from ..messages import jsonable
from ..security import json_object, refuse
from ..state import STATE, State
from .prompts import is_uuid

routes = web.RouteTableDef()

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
SORTS = ("created_at", "execution_duration")
ORDERS = ("asc", "desc")
ENDS = {"execution_success", "execution_error", "execution_interrupted"}
VISUAL = {"images", "video", "audio", "3d"}
LONGEST_TEXT = 1024
"""Characters of a text that stands for a job."""


@routes.get("/jobs")
async def jobs(request: web.Request) -> web.Response:
    """Return jobs: filtered by `status` and `workflow_id`, sorted, from `offset` on, at most `limit`."""
    query = request.query
    statuses = [each.strip().lower() for each in query.get("status", "").split(",") if each.strip()]
    unknown = [each for each in statuses if each not in STATUSES]
    if unknown:
        refuse(400, f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}")
    sort, order = query.get("sort_by", SORTS[0]).lower(), query.get("sort_order", "desc").lower()
    if sort not in SORTS:
        refuse(400, f"sort_by must be one of {', '.join(SORTS)}")
    if order not in ORDERS:
        refuse(400, f"sort_order must be one of {', '.join(ORDERS)}")
    limit, offset = _number(query.get("limit"), "limit"), max(0, _number(query.get("offset"), "offset") or 0)
    if limit is not None and limit <= 0:
        refuse(400, "limit must be a positive integer")
    found = [
        job
        for job in _all(request.app[STATE])
        if (not statuses or job["status"] in statuses)
        and query.get("workflow_id") in (None, "", job.get("workflow_id"))
    ]
    found.sort(key=_duration if sort == "execution_duration" else _created, reverse=order == "desc")
    page = found[offset:][:limit]
    more = {"offset": offset, "limit": limit, "total": len(found), "has_more": offset + len(page) < len(found)}
    return web.json_response(jsonable({"jobs": page, "pagination": more}))


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        refuse(400, f"{name} must be an integer")


def _created(job: dict[str, Any]) -> int:
    return job.get("create_time", 0)


def _duration(job: dict[str, Any]) -> int:
    start, end = job.get("execution_start_time"), job.get("execution_end_time")
    return end - start if start and end else 0


def _all(state: State) -> list[dict[str, Any]]:
    running, pending, entries = state.queue.snapshot()
    return [
        *(_waiting(job, "in_progress") for job in running),
        *(_waiting(job, "pending") for job in pending),
        *(_done(prompt_id, entry) for prompt_id, entry in entries.items()),
    ]


@routes.get("/jobs/{job_id}")
async def job(request: web.Request) -> web.Response:
    """Return one job, with its graph and what it made."""
    job_id = request.match_info["job_id"]
    running, pending, entries = request.app[STATE].queue.snapshot()
    if job_id in entries:
        return web.json_response(jsonable(_whole(job_id, entries[job_id])))
    for status, waiting in (("in_progress", running), ("pending", pending)):
        for each in waiting:
            if each.prompt_id == job_id:
                graph = {"workflow": {"prompt": each.prompt, "extra_data": each.extra_data}}
                return web.json_response(jsonable(_waiting(each, status) | graph))
    refuse(404, "Job not found")


@routes.post("/jobs/cancel")
async def cancel_many(request: web.Request) -> web.Response:
    """Take jobs away or stop them; those that are done or unknown are left alone."""
    ids = (await json_object(request)).get("job_ids")
    if not isinstance(ids, list):
        refuse(400, "job_ids must be a list")
    wrong = [each if isinstance(each, str) else repr(each) for each in ids if not is_uuid(each)]
    if wrong:
        return web.json_response({"error": "job_ids contains invalid id(s)", "invalid_ids": wrong}, status=400)
    cancelled = [request.app[STATE].queue.cancel(each) for each in ids]
    return web.json_response({"cancelled": any(cancelled)})


@routes.post("/jobs/{job_id}/cancel")
async def cancel(request: web.Request) -> web.Response:
    """Take one job away or stop it; nothing happens where it is done or unknown."""
    return web.json_response({"cancelled": request.app[STATE].queue.cancel(request.match_info["job_id"])})


def _waiting(job: Job, status: str) -> dict[str, Any]:
    about = _about(job.prompt_id, job.number, job.extra_data)
    return about | {"status": status, "outputs_count": 0, "previewable_outputs_count": 0}


def _about(job_id: str, number: float, extra_data: dict[str, Any]) -> dict[str, Any]:
    workflow = (extra_data.get("extra_pnginfo") or {}).get("workflow")
    workflow_id = workflow.get("id") if isinstance(workflow, dict) else None
    about = {"id": job_id, "priority": number, "create_time": extra_data.get("create_time"), "workflow_id": workflow_id}
    return {name: value for name, value in about.items() if value is not None}


def _done(job_id: str, entry: Entry) -> dict[str, Any]:
    number, _, _, extra_data, _ = entry["prompt"]
    files = [(node_id, kind, item) for node_id, kind, item in _items(entry) if isinstance(item, dict)]
    told = {
        **_about(job_id, number, extra_data),
        **_times(entry),
        "outputs_count": len(files),
        "previewable_outputs_count": sum(kind in VISUAL for _, kind, _ in files),
        "preview_output": _preview(entry),
    }
    return {name: value for name, value in told.items() if value is not None}


def _times(entry: Entry) -> dict[str, Any]:
    """Return how a run ended and when it began and ended, from its messages."""
    told: dict[str, Any] = {"status": "completed" if entry["status"]["completed"] else "failed"}
    for event, about in entry["status"]["messages"]:
        if event == "execution_start":
            told["execution_start_time"] = about["timestamp"]
        elif event in ENDS:
            told["execution_end_time"] = about["timestamp"]
        if event == "execution_error":
            told["execution_error"] = about
        elif event == "execution_interrupted":
            told["status"] = "cancelled"
    return told


def _whole(job_id: str, entry: Entry) -> dict[str, Any]:
    _, _, prompt, extra_data, _ = entry["prompt"]
    graph = {"prompt": prompt, "extra_data": extra_data}
    return _done(job_id, entry) | {
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": graph,
    }


def _items(entry: Entry) -> list[tuple[str, str, Any]]:
    return [
        (node_id, kind, item)
        for node_id, shown in entry["outputs"].items()
        for kind, items in shown.items()
        if isinstance(items, list) and kind != "animated"
        for item in items
    ]


def _preview(entry: Entry) -> dict[str, Any] | None:
    """Return what stands for a job: a saved image, else any other, else a text."""
    every = _items(entry)
    files = [(node_id, kind, item) for node_id, kind, item in every if isinstance(item, dict) and kind in VISUAL]
    for node_id, kind, item in sorted(files, key=lambda each: each[2].get("type") != "output"):
        return {**item, "nodeId": node_id, "mediaType": item.get("mediaType", kind)}
    for node_id, kind, item in every:
        if kind == "text" and isinstance(item, str):
            cut = {"truncated": True} if len(item) > LONGEST_TEXT else {}
            return {"content": item[:LONGEST_TEXT], **cut, "nodeId": node_id, "mediaType": kind}
    return None
