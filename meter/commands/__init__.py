"""Command-line tools: one module per console script. They are composition roots like :mod:`meter.taps`; no other module imports them."""
