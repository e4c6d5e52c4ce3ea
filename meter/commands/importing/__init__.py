"""``meter-import``: imports what Ceilometer and Gnocchi have stored."""
