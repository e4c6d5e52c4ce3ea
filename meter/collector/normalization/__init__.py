"""What happens to a notification before listeners see it.

Nova's two forms become one, one fact gets one time and one id, and requests by users who are not metered are recognized.
"""
