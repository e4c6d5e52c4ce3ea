"""The archive: the arrays of packed weeks on other PostgreSQL servers, which postgres_fdw reads."""
