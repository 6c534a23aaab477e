"""Files of pods that outlive their pod."""
