-- Numbers of the completeness ledger for days that are over, so that a month is read from few rows: docs/completeness.rst.
-- level: which of agent (1), project (2) and meter (4) a row is for; the columns of the others are 0 or empty. A day is summarized
-- if it has a row of level 0. final_hours is the number of final hours then: fewer mean that a late sample has come since.
CREATE TABLE completeness_day (
    start timestamptz NOT NULL,
    expected bigint NOT NULL,
    received bigint NOT NULL,
    unexpected bigint NOT NULL,
    late bigint NOT NULL,
    agent_id integer NOT NULL,
    level smallint NOT NULL,
    final_hours smallint NOT NULL,
    project text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    PRIMARY KEY (level, start, agent_id, project, meter)
);
CREATE INDEX completeness_day_agent ON completeness_day (agent_id, level, start);
CREATE INDEX completeness_day_project ON completeness_day (project, level, start);

-- The missing samples of these rows, by cause and reason.
CREATE TABLE completeness_day_loss (
    start timestamptz NOT NULL,
    samples bigint NOT NULL,
    agent_id integer NOT NULL,
    level smallint NOT NULL,
    project text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    cause text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    PRIMARY KEY (level, start, agent_id, project, meter, cause, reason)
);

-- Times about which a report, or a rejection, said something after their day was over: the summaries of these days are not read,
-- and made again. Only inserted into, so that writers never wait for each other.
CREATE TABLE completeness_change (
    from_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL
);

CREATE FUNCTION note_completeness_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    from_time timestamptz;
    until_time timestamptz;
BEGIN
    CASE TG_TABLE_NAME
        -- A run also tells how many cycles were missed before it, down to the last that can be missed.
        WHEN 'cycle_run' THEN from_time := NEW.first_due - make_interval(secs => 2.5 * NEW.interval); until_time := NEW.last_due;
        WHEN 'metered_resource' THEN from_time := NEW.first_due; until_time := NEW.until_due;
        WHEN 'polling_exception' THEN from_time := NEW.from_time; until_time := NEW.until_time;
        WHEN 'inactive_pollster' THEN from_time := NEW.since; until_time := NEW.until;
        WHEN 'off_schedule_poll' THEN from_time := NEW.at; until_time := NEW.at;
        ELSE from_time := NEW.start; until_time := NEW.start;
    END CASE;
    IF TG_OP = 'UPDATE' THEN
        -- What a row said before its end has not changed.
        CASE TG_TABLE_NAME
            WHEN 'cycle_run' THEN from_time := OLD.last_due;
            WHEN 'metered_resource' THEN from_time := least(OLD.until_due, NEW.until_due);
            WHEN 'polling_exception' THEN from_time := least(OLD.until_time, NEW.until_time);
            WHEN 'inactive_pollster' THEN from_time := least(OLD.until, NEW.until);
            ELSE NULL;
        END CASE;
    END IF;
    INSERT INTO completeness_change VALUES (from_time, least(until_time, now()));
    RETURN NULL;
END
$$;

CREATE TRIGGER completeness_change AFTER INSERT ON cycle_run
    FOR EACH ROW WHEN (NEW.first_due - make_interval(secs => 2.5 * NEW.interval) < date_trunc('day', now(), 'UTC'))
    EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON cycle_run
    FOR EACH ROW WHEN (NEW.last_due < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON metered_resource
    FOR EACH ROW WHEN (NEW.first_due < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON metered_resource
    FOR EACH ROW WHEN (least(OLD.until_due, NEW.until_due) < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON polling_exception
    FOR EACH ROW WHEN (NEW.from_time < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON polling_exception
    FOR EACH ROW WHEN (OLD.until_time < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON inactive_pollster
    FOR EACH ROW WHEN (NEW.since < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change_later AFTER UPDATE ON inactive_pollster
    FOR EACH ROW WHEN (least(OLD.until, NEW.until) < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT ON off_schedule_poll
    FOR EACH ROW WHEN (NEW.at < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT OR UPDATE ON rejected_sample
    FOR EACH ROW WHEN (NEW.start < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
CREATE TRIGGER completeness_change AFTER INSERT OR UPDATE ON late_sample
    FOR EACH ROW WHEN (NEW.start < date_trunc('day', now(), 'UTC')) EXECUTE FUNCTION note_completeness_change();
