"""Parts of daemons: each function ``add_…`` configures one part and adds it to the daemon, in the order of starting."""
