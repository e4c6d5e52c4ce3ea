"""How long instances existed, in which state and with which flavor."""
