"""Computes, without reading a store: which samples are missing and why, the lives of resources, and the history of names."""
