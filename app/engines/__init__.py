"""What runs a prompt: the embedded host in this process, or a ComfyUI server. Nothing else speaks HTTP to servers."""
