"""What every daemon has: ordered services, threads, ports, status pages, metrics, logs and a manhole."""
