"""ComfyUI's HTTP and WebSocket API, and its editor, on the embedded host."""
