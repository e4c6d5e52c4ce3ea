"""Writing: metering messages into rows, a batch in one transaction."""
