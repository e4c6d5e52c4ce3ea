"""What an operator does about dead letters, by kind: what ``meter-doctor`` and the pages say."""

from __future__ import annotations

KIND_ADVICE = {
    "undecodable": "find the sender of messages that are not metering messages: meter-dead-letters show ID",
    "invalid": "a sender violates the limits of samples: meter-dead-letters show ID has the reason",
    "unverified": "the signing keys of the sender and the collector differ: run meter-doctor on the sender's host, whose check"
    " keys compares them, and add the missing key to [[signing.keys]]; or somebody forges samples",
    "unstorable": "meter-dead-letters show ID says what the database refuses",
    "conflict": "one id was used for two samples: a forgery, or a defect of the sender; meter-dead-letters show ID has both",
    "misunderstood": "meter-notify explain shows what a listener makes of the notification; update the listener or its definition",
    "unsignable": "add a key to [[signing.keys]] that covers the time of the notification, then replay them",
    "unpublishable": "raise [bus] max_body_bytes on the collector, then replay them",
    "listener": "a defect of the listener: the collector's log has the traceback; replay them after an update",
    "too-complex": "find the sender: no service needs so many values; docs/dead-letters has the limits",
    "too-large": "raise [bus] max_body_bytes, or lower [polling] batch_samples of the sender",
    "defect": "a defect of Meter: the collector's log has the traceback; please report it, and replay them after an update",
}
"""What to do about dead letters, by kind."""
