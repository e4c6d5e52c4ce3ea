"""Request handlers: one coroutine per operation, from a parsed request to the record that is encoded."""
