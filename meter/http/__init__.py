"""HTTP clients: one exchange, TLS, and a rate limiter with a circuit breaker per service. The only code that knows treq."""
