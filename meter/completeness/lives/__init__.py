"""Lives of resources: when each existed, in which state, with which size and owner."""
