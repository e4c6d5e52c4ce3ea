"""Statements: closed, signed and chained documents, their verification and their corrections."""
