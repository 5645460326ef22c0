"""From what a request asks for to a workflow, in the words of no service."""
