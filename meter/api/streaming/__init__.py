"""Response bodies that are produced while they are sent: exports and server-sent events."""
