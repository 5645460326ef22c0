"""`tessera serve`: ComfyUI's API and its editor on the embedded host."""

from __future__ import annotations

import argparse
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...host.errors import GraphError
from .arguments import DONE, Parser, folders_of

if TYPE_CHECKING:
    from aiohttp import web

PORT = 8188
"""ComfyUI's."""

LAST_PORT = 65535


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    serve = commands.add_parser("serve", parents=parents, help="open ComfyUI's editor and HTTP API, without ComfyUI")
    serve.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1", help="address (default: this machine alone)")
    serve.add_argument("--port", type=int, default=PORT, help=f"port (default: {PORT})")
    serve.add_argument("--output-dir", metavar="DIR", help="where results are saved (default: output)")
    serve.add_argument("--user-dir", metavar="DIR", default="user", help="of settings and workflows (default: user)")
    serve.add_argument("--open", action="store_true", help="open the editor in the browser")
    serve.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    serve.add_argument("--dtype", help="fp16, bf16 or fp32 (default: what suits the model and the device)")
    serve.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run the command until Ctrl-C, and return the exit code."""
    if not 0 <= options.port <= LAST_PORT:
        raise GraphError([f"--port is {options.port}; expected 0 (any that is free) to {LAST_PORT}"])
    application = _application(options)
    import asyncio

    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(application, options))
    return DONE


def _application(options: argparse.Namespace) -> web.Application:
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise GraphError(['tessera serve needs aiohttp; run pip install "tessera-nodes[ui]"']) from None
    from ...host import folder_paths
    from ...host.runtime import devices
    from ..server.application import make_application
    from ..server.editor_files import editor_folder

    folder_paths.configure(**folders_of(options))
    try:
        devices.configure(options.device, options.dtype)
    except ValueError as error:
        raise GraphError([str(error)]) from error
    editor = editor_folder()
    if editor is None:
        logging.getLogger(__name__).warning("the editor is not installed; run pip install comfyui-frontend-package")
    return make_application(editor, Path(options.user_dir).absolute())


async def _serve(application: web.Application, options: argparse.Namespace) -> None:
    """Serve until Ctrl-C, or until the system ends the process."""
    import asyncio
    import signal
    import webbrowser

    from aiohttp import web

    ended = asyncio.Event()
    with suppress(NotImplementedError):  # On Windows.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await _listen(web.TCPSite(runner, options.listen, options.port), options)
        address = _address(options.listen, runner.addresses[0][1])
        print(f"Tessera is at {address}; Ctrl-C ends it", flush=True)
        if options.open:
            await asyncio.to_thread(webbrowser.open, address)
        await ended.wait()
    finally:
        await runner.cleanup()


async def _listen(site: web.TCPSite, options: argparse.Namespace) -> None:
    try:
        await site.start()
    except OSError as error:
        reason = error.strerror or str(error)
        line = f"cannot listen on {options.listen} port {options.port}: {reason}; choose another --port or --listen"
        raise GraphError([line]) from error


def _address(listen: str, port: int) -> str:
    """Return what a browser on this machine opens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
