"""A server that answers as ComfyUI does, with small images instead of a model, and with every fault on demand."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from graph_nodes import INFO
from PIL import Image

NODES = json.loads(json.dumps(dict(INFO)))
# The older form of a combo box, a class of a foreign pack, and one whose inputs grow.
NODES["Pick"]["input"]["required"]["channel"] = [["red", "green", "blue"]]
NODES["Foreign"] = {
    "input": {
        "required": {
            "amount": ["INT", {"default": 3, "min": 0, "max": 9}],
            "mode": [["soft", "hard"], {"default": "soft"}],
            "images": ["COMFY_AUTOGROW_V3", {}],
        }
    },
    "output": ["IMAGE"],
    "output_node": False,
    "display_name": "Foreign",
    "name": "Foreign",
}


class FakeComfyUI:
    """The state of the server.

    Attributes:
        fault: what it does wrong: "html", "list", "slow", "short", "damaged", "loses", "refuses", "fails".
        seconds: how long a prompt takes.
        removes: how often files are gone before they are fetched.
        starting: how often files are asked for while the server starts behind a proxy.
        posts: the prompts that were posted.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.seconds = 0.0
        self.removes = self.starting = 0
        self.posts: list[dict[str, Any]] = []
        self.restarts_after_posts: set[int] = set()
        self.uploads: dict[str, bytes] = {}
        self.number = 40
        self.url = ""
        self.forget()

    def forget(self) -> None:
        """Lose what a process loses when it ends."""
        self.history: dict[str, Any] = {}
        self.queue: list[str] = []
        self.files: dict[str, bytes] = {}
        self.sockets: list[web.WebSocketResponse] = []

    def application(self) -> web.Application:
        """The routes."""
        routes = [
            web.get("/object_info", self.object_info),
            web.get("/ws", self.ws),
            web.post("/prompt", self.prompt),
            web.post("/upload/image", self.upload),
            web.get("/history/{id}", self.get_history),
            web.get("/queue", self.get_queue),
            web.post("/queue", self.ok),
            web.post("/interrupt", self.ok),
            web.post("/free", self.ok),
            web.get("/view", self.view),
        ]
        application = web.Application(client_max_size=2**26)
        application.add_routes(routes)
        return application

    async def object_info(self, _: web.Request) -> web.Response:
        if self.fault == "slow":
            await asyncio.sleep(3)
        if self.fault == "html":
            return web.Response(text="<html>Welcome</html>", content_type="text/html")
        return web.json_response([1, 2] if self.fault == "list" else NODES)

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for _ in socket:
            pass
        return socket

    async def prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posts.append(body)
        if self.fault == "refuses":
            wrong = {"message": "Value not in list", "details": "seed", "extra_info": {"input_name": "seed"}}
            error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
            errors = {"1": {"errors": [wrong], "class_type": "Seeded"}}
            return web.json_response({"error": error, "node_errors": errors}, status=400)
        prompt_id = body.get("prompt_id") or "0"
        self.queue.append(prompt_id)
        if len(self.posts) in self.restarts_after_posts:
            asyncio.get_running_loop().create_task(self.restart())
        else:
            asyncio.get_running_loop().create_task(self.work(prompt_id, body["prompt"]))
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": {}})

    async def restart(self) -> None:
        """Forget everything, in the middle of a prompt."""
        sockets = self.sockets
        self.forget()
        for socket in sockets:
            await socket.close()

    async def work(self, prompt_id: str, prompt: dict[str, Any]) -> None:
        await asyncio.sleep(self.seconds)
        if self.fault == "loses":
            self.queue.remove(prompt_id)
            for socket in self.sockets:
                await socket.close()
            return
        outputs: dict[str, Any] = {}
        for node_id, node in prompt.items():
            if node["class_type"] == "Save":
                outputs[node_id] = {"images": [self.save(prompt, node["inputs"].get("filename_prefix", "image"))]}
            elif node["class_type"] == "Show":
                outputs[node_id] = {"text": ["moss"]}
        status: dict[str, Any] = {"status_str": "success", "completed": True, "messages": []}
        if self.fault == "fails":
            told = {"node_id": "1", "node_type": "Seeded", "exception_message": "out of paint"}
            told["exception_type"] = "builtins.RuntimeError"
            status = {"status_str": "error", "completed": False, "messages": [["execution_error", told]]}
        if prompt_id in self.queue:
            self.queue.remove(prompt_id)
            self.history[prompt_id] = {"outputs": outputs, "status": status}
        await self.tell("progress", {"value": 1, "max": 2, "node": "1", "prompt_id": prompt_id})
        await self.tell("executing", {"node": None, "prompt_id": prompt_id})

    def save(self, prompt: dict[str, Any], prefix: str) -> dict[str, str]:
        """Paint an image whose colour is decided by the prompt."""
        self.number += 1
        colour = tuple(hashlib.sha256(json.dumps(prompt, sort_keys=True).encode()).digest()[:3])
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        name = f"{prefix}_{self.number:05}_.png"
        self.files[name] = file.getvalue()
        return {"filename": name, "subfolder": "", "type": "output"}

    async def tell(self, kind: str, data: dict[str, Any]) -> None:
        for socket in list(self.sockets):
            if not socket.closed:
                await socket.send_str(json.dumps({"type": kind, "data": data}))

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        field = form["image"]
        assert isinstance(field, web.FileField)
        self.uploads[field.filename] = field.file.read()
        return web.json_response({"name": field.filename, "subfolder": "", "type": "input"})

    async def get_history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def get_queue(self, _: web.Request) -> web.Response:
        return web.json_response({"queue_running": [[1, each, {}, {}, []] for each in self.queue], "queue_pending": []})

    async def ok(self, _: web.Request) -> web.Response:
        return web.Response()

    async def view(self, request: web.Request) -> web.StreamResponse:
        name = request.query["filename"]
        if self.starting:
            self.starting -= 1
            return web.Response(status=503)
        if self.removes or name not in self.files:
            self.removes -= 1
            return web.Response(status=404)
        content = self.files[name]
        if self.fault == "damaged":
            return web.Response(body=content[: len(content) // 2])
        if self.fault == "short":
            response = web.StreamResponse(headers={"Content-Length": str(len(content))})
            await response.prepare(request)
            await response.write(content[:9])
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(body=content)


@contextmanager
def serving(fake: FakeComfyUI, tls: ssl.SSLContext | None = None) -> Iterator[FakeComfyUI]:
    """Let the server answer in a thread."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    started = threading.Event()

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()

    def serve() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
