"""ComfyUI's JSON and frames as text for people who look at the traffic. Nothing here decides anything."""
