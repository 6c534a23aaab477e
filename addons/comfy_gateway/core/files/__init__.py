"""Files as ComfyUI names them, and where they are."""
