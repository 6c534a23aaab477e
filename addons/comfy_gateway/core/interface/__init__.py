"""ComfyUI's front end, and what it learns of nodes."""
