-- Verification reads voided samples in the order of their times, beside the others; retention deletes them by time.
CREATE INDEX voided_sample_timestamp ON voided_sample (timestamp, message_id);
