"""How long instances existed, in each state with each flavor."""
