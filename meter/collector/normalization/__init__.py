"""Normalization: the changes to a notification before listeners receive it.

Nova's versioned notifications become unversioned ones, notifications about one event get one id and one time, and
requests of ignored users are recognized.
"""
