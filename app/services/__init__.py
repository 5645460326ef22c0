"""Requests of hosted services as workflows: one page a service."""

from ...host.errors import GraphError

try:
    import pydantic as pydantic
except ModuleNotFoundError as error:
    raise GraphError(
        ['pydantic is not installed, which reads requests; install it: pip install "tessera-nodes[host]"']
    ) from error
