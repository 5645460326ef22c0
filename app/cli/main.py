"""The command line: `tessera run`, `tessera check`, `tessera nodes`, `tessera import`, `tessera params`.

Exit codes: 0 done; 2 the input is wrong; 130 stopped by Ctrl-C; 1 anything else. Errors are single lines on standard
error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ...host.errors import GraphError

if TYPE_CHECKING:
    from ...host.graph.execution import Run
    from ...host.schema.object_info import ObjectInfo
    from .webhook import Webhook

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"tessera {version('tessera-nodes')}")
        raise SystemExit(DONE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    _quiet(options.verbose)
    try:
        return options.command(options)
    except GraphError as error:
        return _fail(BAD_INPUT, *error.lines)
    except KeyboardInterrupt:
        return _fail(STOPPED, "stopped")
    except BrokenPipeError:
        # Whoever read the output has gone; nothing may be written while Python shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tessera", description="Run ComfyUI workflows without ComfyUI.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    everywhere = _Parser(add_help=False)
    everywhere.add_argument("--models-dir", metavar="DIR", help="where models lie (default: models)")
    everywhere.add_argument("--input-dir", metavar="DIR", help="where pictures are loaded from (default: input)")
    everywhere.add_argument("--verbose", action="store_true", help="say more on standard error, with tracebacks")
    graph = _Parser(add_help=False)
    graph.add_argument(
        "workflow",
        metavar="WORKFLOW",
        help="API or UI format JSON, or a picture (PNG, WebP, JPEG, AVIF) that carries either",
    )
    graph.add_argument(
        "--set",
        metavar="NODE.INPUT=VALUE",
        action="append",
        default=[],
        help='change a value, in JSON or as plain text: --set 3.seed=7 --set 6.text="green moss"',
    )
    _add_run(commands, [graph, everywhere])
    check = commands.add_parser("check", parents=[graph, everywhere], help="say what is wrong with a workflow")
    check.set_defaults(command=_check)
    nodes = commands.add_parser("nodes", parents=[everywhere], help="list the nodes")
    nodes.add_argument("--json", action="store_true", help="in the shape of ComfyUI's /object_info")
    nodes.set_defaults(command=_nodes)
    _add_import(commands, everywhere)
    _add_params(commands)
    return parser


def _add_run(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    run = commands.add_parser("run", parents=parents, help="run a workflow and print the files it saved")
    run.add_argument("--output-dir", metavar="DIR", help="where results are saved (default: output)")
    run.add_argument(
        "--json",
        action="store_true",
        help='print one JSON object: {"outputs": {NODE: {"images": [{"path": ...}], "text": [...], OUTPUT: [...]}}, '
        '"seconds": ...}, with the files, previews, texts and numbers of every node that ran',
    )
    run.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    run.add_argument("--dtype", help="fp16, bf16 or fp32 (default: what suits the model and the device)")
    run.add_argument("--webhook", metavar="URL", help="where one JSON report is sent when the run has ended")
    run.add_argument("--track-id", metavar="ID", help="goes into that report")
    run.add_argument("--webhook-private", action="store_true", help="allow a webhook whose address is not public")
    run.set_defaults(command=_run)


def _add_import(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    made = commands.add_parser("import", parents=[everywhere], help="make a workflow of a hosted service's request")
    made.add_argument("service", metavar="SERVICE", help="one that tessera params lists, such as scenario-texture")
    made.add_argument("request", metavar="REQUEST", help="the JSON body that was sent to the service")
    made.add_argument("-o", "--output", metavar="FILE", required=True, help="the workflow to write")
    made.add_argument("--strict", action="store_true", help="refuse what would only be approximated or left out")
    made.add_argument("--model", metavar="NAME", help="the checkpoint to use (default: the one of the request's name)")
    made.add_argument(
        "--background-model",
        metavar="NAME",
        default="",
        help="the file in models/background_removal that tells what is in front, where a request asks for transparency",
    )
    made.add_argument(
        "--text-model",
        metavar="NAME",
        default="",
        help="the folder in models/text_generation that writes prompts better, where a request asks for it",
    )
    made.add_argument("--family", choices=["sd15", "sdxl", "flux-dev", "flux-pro", "flux-schnell"], help="of the model")
    made.add_argument("--seed", type=int, help="for a request that names none (default: a random one)")
    made.add_argument(
        "--image",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="the picture that a name or link in the request stands for; nothing is fetched",
    )
    made.set_defaults(command=_import)


def _add_params(commands: Any) -> None:
    params = commands.add_parser("params", help="list what becomes of hosted services' parameters in a workflow")
    params.add_argument("service", nargs="?", metavar="SERVICE", help="only this one")
    shape = params.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as JSON")
    shape.add_argument("--markdown", action="store_true", help="as the page in app/services")
    params.set_defaults(command=_params, verbose=False)


def _quiet(verbose: bool) -> None:
    """Let libraries speak only where someone watches, and never fetch anything."""
    level = logging.INFO if verbose else logging.WARNING if sys.stderr.isatty() else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    if verbose:
        logging.getLogger(__name__.partition(".")[0]).setLevel(logging.DEBUG)
    else:
        import warnings

        warnings.simplefilter("ignore")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ["HF_HUB_OFFLINE"] = "1"


def _object_info(options: argparse.Namespace) -> ObjectInfo:
    from ...host import folder_paths

    folder_paths.configure(options.models_dir, options.input_dir, getattr(options, "output_dir", None))
    from ...host.schema.object_info import ObjectInfo
    from ..registry import node_classes

    return ObjectInfo(node_classes())


def _nodes(options: argparse.Namespace) -> int:
    info = _object_info(options)
    if options.json:
        print(json.dumps(dict(info)))
        return DONE
    for node_id, node in sorted(info.items(), key=lambda item: (item[1]["category"], item[0])):
        print(f"{node_id:<24} {node['description']}")
    return DONE


def _import(options: argparse.Namespace) -> int:
    from .import_request import run

    for line in run(options, _object_info(options)):
        print(line)
    return DONE


def _params(options: argparse.Namespace) -> int:
    from ..services import pages
    from ..services.services import SERVICES, find_service

    services = [find_service(options.service)] if options.service else list(SERVICES.values())
    if options.markdown:
        print(pages.markdown(), end="")
    elif options.json:
        print(json.dumps(pages.records(services), indent=1))
    else:
        print(pages.text(services))
    return DONE


def _load(options: argparse.Namespace) -> Run:
    """Read, change and check a workflow. The file is read before the slow imports: a wrong name shows at once."""
    from ...host.graph.workflow import read, to_prompt
    from .assignments import apply

    workflow = read(options.workflow)
    info = _object_info(options)
    workflow.prompt = to_prompt(workflow, info)
    workflow = apply(options.set, workflow, info)
    from ...host.graph.execution import Run
    from ...host.graph.validation import validate

    workflow.prompt, outputs = validate(workflow.prompt, info)
    return Run(workflow.prompt, outputs, info, extra_pnginfo=workflow.extra_pnginfo)


def _check(options: argparse.Namespace) -> int:
    run = _load(options)
    print(f"{options.workflow}: {len(run.prompt)} nodes, nothing wrong; outputs: {', '.join(run.outputs)}")
    return DONE


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    hook = _webhook(options)
    try:
        run = _load(options)
        _choose_device(options)
    except GraphError as error:
        wrong = hook.send(_report(error.lines)) if hook else ""
        raise GraphError([*error.lines, *([wrong] if wrong else [])]) from error
    code, line = _carry_out(run)
    from ...host.graph.results import results, saved

    told, files, seconds = results(run), saved(run), round(time.monotonic() - started, 3)
    if options.json:
        print(json.dumps({"outputs": told, "seconds": seconds}, allow_nan=False))
    else:
        for path in files:
            print(path)
    wrong = hook.send(_report([line] if line else [], told, files, seconds)) if hook else ""
    lines = [each for each in (line, wrong) if each]
    return _fail(code or FAILED, *lines) if lines else code


def _webhook(options: argparse.Namespace) -> Webhook | None:
    """Where the run is reported to, looked at before anything slow begins."""
    if options.webhook is None:
        if options.track_id is not None or options.webhook_private:
            raise GraphError(["--track-id and --webhook-private belong to --webhook URL; add it, or leave them out"])
        return None
    from .webhook import Webhook

    hook = Webhook(options.webhook, options.track_id, options.webhook_private)
    hook.check()
    return hook


def _report(
    errors: Sequence[str],
    outputs: Mapping[str, Any] | None = None,
    saved: Sequence[str] = (),
    seconds: float | None = None,
) -> dict[str, Any]:
    """What a webhook is told; `output` lists the saved files."""
    state = {"status": "failed" if errors else "success", "errors": list(errors)}
    return state | {"output": list(saved), "outputs": outputs or {}, "seconds": seconds}


def _choose_device(options: argparse.Namespace) -> None:
    from ...host.runtime import devices

    try:
        devices.configure(options.device, options.dtype)
    except ValueError as error:
        raise GraphError([str(error)]) from error


def _carry_out(run: Run) -> tuple[int, str]:
    """Run the graph; what was made until an error or Ctrl-C stays in `run`."""
    from ...host.errors import NodeError
    from ...host.progress import InterruptProcessingException
    from .progress_bar import ProgressDisplay, stop_on_ctrl_c

    with stop_on_ctrl_c(), ProgressDisplay(len(run.needed)) as display:
        run.on_node = display.on_node
        try:
            run.start()
        except NodeError as error:
            return BAD_INPUT if error.bad_input else FAILED, error.line
        except (InterruptProcessingException, KeyboardInterrupt):
            return STOPPED, "stopped; what was saved before stays"
    return DONE, ""


if __name__ == "__main__":
    sys.exit(main())
