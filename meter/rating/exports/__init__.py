"""Exports: a statement as CSV, as a page to print, and as FOCUS data sets."""
