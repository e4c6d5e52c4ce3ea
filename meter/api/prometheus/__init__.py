"""Prometheus' query language over the store: the only code that knows ``promql_parser``."""
