"""PostgreSQL itself: connections, pools, statements, and the embedded server."""
