"""How long instances existed, in each state with each flavor; what projects, domains and users are and were called."""
