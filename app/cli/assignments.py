"""`--set NODE.INPUT=VALUE`, read into settings of `tessera.run`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...host.errors import GraphError, shown


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """Return values by "NODE.INPUT"; the last one counts. A value is JSON, or plain text, since a shell removes quotes.

    Raises:
        GraphError: a setting is not of the form NODE.INPUT=VALUE.
    """
    parts = {setting: setting.partition("=") for setting in settings}
    wrong = [setting for setting, (target, equals, _) in parts.items() if not (equals and _is_target(target))]
    if wrong:
        expected = "expected NODE.INPUT=VALUE, such as 3.seed=7"
        raise GraphError(f"--set {shown(setting)}: {expected}" for setting in wrong)
    return {target: _value(text) for target, _, text in parts.values()}


def _is_target(text: str) -> bool:
    node_id, _, name = text.partition(".")
    return bool(node_id and name)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
