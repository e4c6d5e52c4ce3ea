"""The audit log: what administrators did, in a hash chain. :mod:`meter.store.audit.chain` says what the hashes prove."""
