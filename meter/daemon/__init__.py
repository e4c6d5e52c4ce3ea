"""Infrastructure of every daemon: ordered and supervised services, threads, ports, status pages, metrics, logs, manhole."""
