"""Real daemons as processes of their own, against real servers."""
