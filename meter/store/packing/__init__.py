"""Packed weeks: how samples of old weeks are stored as arrays, and the work that packs and unpacks them."""
