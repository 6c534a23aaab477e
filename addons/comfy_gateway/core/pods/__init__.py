"""One pod: its name, its address, its front door."""
