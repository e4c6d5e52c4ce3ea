"""Commands for people: one module per console script. Composition roots like :mod:`meter.taps`; nothing imports them."""
