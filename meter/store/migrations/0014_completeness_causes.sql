-- Causes of missing samples, and numbers of hours, of the completeness ledger: docs/completeness.rst.

-- The ledger counts the voided samples of some series.

CREATE INDEX voided_sample_series ON voided_sample (series_id, timestamp);

-- Whether samples were expected of what the row is about: false for what a pollster skipped without a name, for what it does not
-- measure any more is not expected any more. Such a row explains no missing sample.
ALTER TABLE polling_exception ADD COLUMN expected boolean NOT NULL DEFAULT true;
UPDATE polling_exception SET expected = false
WHERE cause = 'skipped' AND pollster <> '' AND resource = '' AND reason <> 'an earlier poll was still running';

-- The same numbers as of days, of hours that are over and final: only the levels of at most one of agent, project and meter.
CREATE TABLE completeness_hour (LIKE completeness_day INCLUDING ALL);
CREATE TABLE completeness_hour_loss (LIKE completeness_day_loss INCLUDING ALL);

-- What is said about an hour that is over makes its summary invalid, and not only that of a day that is over.
DROP TRIGGER completeness_change ON cycle_run;
DROP TRIGGER completeness_change_later ON cycle_run;
DROP TRIGGER completeness_change ON metered_resource;
DROP TRIGGER completeness_change_later ON metered_resource;
DROP TRIGGER completeness_change ON polling_exception;
DROP TRIGGER completeness_change_later ON polling_exception;
DROP TRIGGER completeness_change ON inactive_pollster;
DROP TRIGGER completeness_change_later ON inactive_pollster;
DROP TRIGGER completeness_change ON off_schedule_poll;
DROP TRIGGER completeness_change ON rejected_sample;
DROP TRIGGER completeness_change ON late_sample;
CREATE TRIGGER completeness_change AFTER INSERT ON cycle_run
    FOR EACH ROW WHEN (NEW.first_due - make_interval(secs => 2.5 * NEW.interval) < date_trunc('hour', now(), 'UTC'))
    EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON cycle_run
    FOR EACH ROW WHEN (NEW.last_due < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON metered_resource
    FOR EACH ROW WHEN (NEW.first_due < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON metered_resource
    FOR EACH ROW WHEN (least(OLD.until_due, NEW.until_due) < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON polling_exception
    FOR EACH ROW WHEN (NEW.from_time < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON polling_exception
    FOR EACH ROW WHEN (OLD.until_time < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON inactive_pollster
    FOR EACH ROW WHEN (NEW.since < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON inactive_pollster
    FOR EACH ROW WHEN (least(OLD.until, NEW.until) < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON off_schedule_poll
    FOR EACH ROW WHEN (NEW.at < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT OR UPDATE ON rejected_sample
    FOR EACH ROW WHEN (NEW.start < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT OR UPDATE ON late_sample
    FOR EACH ROW WHEN (NEW.start < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
