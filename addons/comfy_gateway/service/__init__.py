"""Tasks that look, decide by ``core`` and act through its ports."""
