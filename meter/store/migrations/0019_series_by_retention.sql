-- The series of a meter that may have samples since a time. Statistics, usage and lists with a start read these, and not those of all
-- resources that have been deleted since, of which there may be many times as many.
CREATE INDEX series_meter_retained ON series (meter_id, retained_until);
