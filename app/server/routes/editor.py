"""The editor's page, and what the pack gives it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from ....host.schema.extension import REPLACEMENTS, ROUTES
from .. import pack
from ..help_pages import help_text
from ..security import Handler, inside, refuse
from ..state import STATE

routes = web.RouteTableDef()

NO_EDITOR = """<!doctype html><title>Tessera</title>
<p>The API is here. The editor is not installed: <code>pip install "tessera-nodes[ui]"</code>, then start it again.</p>
"""


@web.middleware
async def not_kept(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have browsers ask again for scripts and styles, which change with the installed version."""
    response = await handler(request)
    if request.path.endswith((".js", ".css")):
        response.headers.setdefault("Cache-Control", "no-cache")
    return response


@routes.get("/")
async def page(request: web.Request) -> web.StreamResponse:
    """Return the editor."""
    folder = request.app[STATE].editor
    headers = {"Cache-Control": "no-store, must-revalidate"}
    if folder is None:
        return web.Response(text=NO_EDITOR, content_type="text/html", headers=headers)
    return web.FileResponse(folder / "index.html", headers=headers)


@routes.get("/user.css")
async def no_style(request: web.Request) -> web.Response:
    """Return no style; the user's own is among the user's files."""
    return web.Response(text="", content_type="text/css")


@routes.get("/templates/{name}")
async def template(request: web.Request) -> web.StreamResponse:
    """Return the list of the example workflows, whatever the language; the list of logos, which is empty; or a file."""
    name = request.match_info["name"]
    if name == "index_logo.json":
        return web.json_response({})
    if name == "index.json" or (name.startswith("index.") and name.endswith(".json")):
        return web.json_response(pack.templates())
    path = pack.template_file(name)
    return web.FileResponse(path) if path else refuse(404, "there is no such template")


@routes.get(f"/extensions/{pack.NAME}/docs/{{node}}/{{locale}}.md")
async def help_page(request: web.Request) -> web.StreamResponse:
    """Return a node's help page, in English where it is not translated."""
    node, locale = request.match_info["node"], request.match_info["locale"]
    pages = (inside(str(pack.WEB / "docs"), *names) for names in ((node, f"{locale}.md"), (f"{node}.md",)))
    found = next((page for page in pages if Path(page).is_file()), None)
    return web.FileResponse(found) if found else refuse(404, "there is no such page")


@routes.get("/docs/{node}/{locale}.md")
async def core_help_page(request: web.Request) -> web.Response:
    """Return a page on a core node, made of its texts."""
    info, node = request.app[STATE].object_info(), request.match_info["node"]
    if node not in info:
        refuse(404, "there is no such node")
    return web.Response(text=help_text(info[node]), content_type="text/markdown")


@routes.get("/extensions")
async def extensions(request: web.Request) -> web.Response:
    """Return the addresses of all scripts: the editor's own and the pack's."""
    folder = request.app[STATE].editor
    own = sorted((folder / "extensions").rglob("*.js")) if folder is not None else []
    names = [f"/{path.relative_to(folder).as_posix()}" for path in own if folder is not None]
    return web.json_response([*names, *pack.scripts()])


@routes.get("/workflow_templates")
async def templates_of_packs(request: web.Request) -> web.Response:
    """Return no names: the examples are among the templates, with titles and descriptions, which names have not."""
    return web.json_response({})


@routes.get("/i18n")
async def texts(request: web.Request) -> web.Response:
    """Return the nodes' texts by language."""
    return web.json_response(pack.texts())


@routes.get("/global_subgraphs")
async def subgraphs(request: web.Request) -> web.Response:
    """Return the subgraphs that the pack offers, by id."""
    return web.json_response({key: pack.subgraph_entry(path) for key, path in pack.subgraphs().items()})


@routes.get("/global_subgraphs/{id}")
async def subgraph(request: web.Request) -> web.Response:
    """Return one subgraph with its graph; null where there is none."""
    path: Path | None = pack.subgraphs().get(request.match_info["id"])
    if path is None:
        return web.json_response(None)
    return web.json_response(pack.subgraph_entry(path) | {"data": path.read_text(encoding="utf-8")})


@routes.get("/node_replacements")
async def replacements(request: web.Request) -> web.Response:
    """Return which nodes stand in for others, of those that are there."""
    known = request.app[STATE].classes
    offered = {old: [each for each in new if each["new_node_id"] in known] for old, new in REPLACEMENTS.items()}
    return web.json_response({old: new for old, new in offered.items() if new})


@routes.get("/tessera/{name}")
async def answer(request: web.Request) -> web.Response:
    """Return what the pack answers its interface."""
    asked = ROUTES.get(f"/tessera/{request.match_info['name']}")
    if asked is None:
        raise web.HTTPNotFound
    return web.json_response(await asyncio.to_thread(asked, request.query))
