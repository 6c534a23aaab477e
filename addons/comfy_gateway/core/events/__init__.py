"""Frames of ComfyUI's socket, and what the clients of one have been told."""
