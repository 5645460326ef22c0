"""Jobs of request bodies of a hosted service, one a line."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files.temporary import short_lived
from ...host.errors import GraphError, shown
from ...host.graph.documents import from_document
from ...host.graph.workflow import to_prompt
from ..engines.engine import Engine, output_nodes
from ..services.bodies.images import RequestImages
from ..services.convert import convert
from ..services.services import find_service
from .plan import Planned, key_of, models_of
from .tables import Row

LONGEST_TOLD = 200
"""Characters of a text that the journal repeats; images are longer."""

SEED_BITS = 31

SECRETS = {"key"}
"""Parameters that the journal leaves out: what a service knows its customer by."""


@dataclass
class RequestPlanner:
    """Makes jobs of request bodies, as `tessera import` makes workflows of them.

    Attributes:
        service: one that `tessera params` lists.
        table: the file that the rows are from.
        now: what dates in file names are filled in with.
        images: files by the names that requests have for them.
        choices: what `convert` may be told besides: model, family, strict, text_model, background_model.
    """

    engine: Engine
    service: str
    table: Path
    now: time.struct_time
    images: Mapping[str, Path] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._service = find_service(self.service)
        self.info = self.engine.object_info()

    def plan(self, row: Row) -> Planned:
        """Return the job of a request.

        Raises:
            GraphError: it is refused.
        """
        if row.wrong:
            raise GraphError([row.wrong])
        return self._planned(row.values)

    def content(self, row: Row, planned: Planned) -> str:
        """Return where the request stands in its file."""
        return json.dumps(row.place)

    def again(self, content: str) -> Planned:
        """Return a job once more."""
        offset, length = json.loads(content)
        try:
            with self.table.open("rb") as file:
                file.seek(offset)
                return self._planned(json.loads(file.read(length)))
        except (OSError, ValueError) as error:
            raise GraphError([f"{self.table}: changed since the batch began ({error}); start it again"]) from error

    def _planned(self, body: dict[str, Any]) -> Planned:
        images = RequestImages(self.images)
        document, _ = convert(self._service, body, self.info, images, _seed(body), **self.choices)
        workflow = from_document(document)
        prompt = to_prompt(workflow, self.info, self.now)
        with short_lived() as folder:
            files = {name: Path(folder, name) for name in images.found}
            for name, content in images.found.items():
                files[name].write_bytes(content)
            prompt = self.engine.check(prompt, files)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in images.found.items()}
        return Planned(
            key_of(prompt, digests),
            models_of(prompt, self.info),
            prompt,
            output_nodes(prompt, self.info),
            {name: _told(value) for name, value in body.items() if name not in SECRETS},
            {},
            digests,
            images.found,
            workflow.ui_graph,
        )


def _seed(body: Mapping[str, Any]) -> int:
    """Return a random seed for a request that names none: always the same, so that its job has one key."""
    content = json.dumps(body, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> (32 - SEED_BITS)


def _told(value: Any) -> Any:
    return value if len(json.dumps(value)) <= LONGEST_TOLD else shown(value)
