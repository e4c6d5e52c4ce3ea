-- The completeness ledger: docs/completeness.rst. What agents polled is stored as run lengths, exceptions as rows.

-- An agent is daemon@host. retained_until is not needed: rows are deleted with the last cycle_run of the agent.
CREATE TABLE agent (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    daemon text COLLATE "C" NOT NULL,
    host text COLLATE "C" NOT NULL
);

-- One life of an agent's process. Its reports are applied in the order of their sequence numbers: applied is the number of the
-- last one, without a gap before it except those in missing_report. stopped: the last report said that the agent stops.
CREATE TABLE agent_boot (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    boot uuid NOT NULL,
    first_due timestamptz NOT NULL,
    last_due timestamptz NOT NULL,
    applied bigint NOT NULL,
    stopped boolean NOT NULL DEFAULT false,
    PRIMARY KEY (agent_id, boot)
);

-- Reports that arrived before one with a lower number: they wait, at most 1 000 of a boot.
CREATE TABLE waiting_report (
    agent_id integer NOT NULL,
    boot uuid NOT NULL,
    sequence bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    mac bytea NOT NULL,
    content text NOT NULL,
    PRIMARY KEY (agent_id, boot, sequence),
    FOREIGN KEY (agent_id, boot) REFERENCES agent_boot ON DELETE CASCADE
);

-- The signatures of the last reports of a boot: a repeated report is the same one, or a forged or reused number.
CREATE TABLE applied_report (
    agent_id integer NOT NULL,
    boot uuid NOT NULL,
    sequence bigint NOT NULL,
    due timestamptz NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (agent_id, boot, sequence),
    FOREIGN KEY (agent_id, boot) REFERENCES agent_boot ON DELETE CASCADE
);

-- Cycles of a pollster that followed each other without one missing, all of which ran: a healthy agent has one row a day.
-- interval is in seconds. pollsters are the names of those with this interval that were asked in each of these cycles.
CREATE TABLE cycle_run (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    boot uuid NOT NULL,
    interval double precision NOT NULL,
    first_due timestamptz NOT NULL,
    last_due timestamptz NOT NULL,
    cycles integer NOT NULL,
    pollsters text[] COLLATE "C" NOT NULL,
    PRIMARY KEY (agent_id, interval, first_due)
);
CREATE INDEX cycle_run_last_due ON cycle_run (last_due);

-- Lists of meters that are measured together.
CREATE TABLE meter_list (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    meters text[] COLLATE "C" NOT NULL
);

-- What an agent measures: one sample of each meter of the list, of this resource, in each cycle from first_due, until before
-- until_due. Texts, not ids of other tables: a resource may never have had a sample.
CREATE TABLE metered_resource (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    pollster text COLLATE "C" NOT NULL,
    interval double precision NOT NULL,
    resource text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    meter_list_id integer NOT NULL REFERENCES meter_list,
    first_due timestamptz NOT NULL,
    until_due timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (resource, agent_id, pollster, meter_list_id, project, first_due)
);
CREATE INDEX metered_resource_project ON metered_resource (project, until_due);
CREATE INDEX metered_resource_agent ON metered_resource (agent_id, pollster, until_due);

-- What was not as usual: samples that were not made or were lost, and why, from from_time until before until_time.
-- cause is one of meter/completeness/causes.py. pollster '' stands for all; resource '' for all of the pollster. samples is
-- the number that the agent stated, 0 if it did not know it. consecutive cycles with the same cause are one row (cycles).
CREATE TABLE polling_exception (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    pollster text COLLATE "C" NOT NULL,
    interval double precision NOT NULL,
    resource text COLLATE "C" NOT NULL,
    cause text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    from_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL,
    cycles integer NOT NULL,
    samples bigint NOT NULL
);
CREATE INDEX polling_exception_time ON polling_exception (agent_id, until_time);

-- Samples made between cycles, after an event of libvirt: they are expected beside those of the cycles.
CREATE TABLE off_schedule_poll (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    pollster text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    resource text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    meter_list_id integer NOT NULL REFERENCES meter_list,
    PRIMARY KEY (resource, agent_id, pollster, at, meter_list_id)
);
CREATE INDEX off_schedule_poll_project ON off_schedule_poll (project, at);

-- Pollsters that are installed and not active on an agent, and since when.
CREATE TABLE inactive_pollster (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    pollster text COLLATE "C" NOT NULL,
    disabled boolean NOT NULL,
    reason text NOT NULL,
    meters text[] COLLATE "C" NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (agent_id, pollster, since)
);

-- Samples that were recorded long after they were measured ([completeness] late_after_seconds), by hour and series.
CREATE TABLE late_sample (
    start timestamptz NOT NULL,
    series_id integer NOT NULL,
    samples integer NOT NULL,
    max_seconds double precision NOT NULL,
    PRIMARY KEY (start, series_id)
);

-- Samples that were dead-lettered, by hour: what the collector rejected is not missing without a trace.
CREATE TABLE rejected_sample (
    start timestamptz NOT NULL,
    meter text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (start, meter, resource, project, kind)
);

-- The last heartbeat of each daemon, as JSON, and the times of its clock and of the database when it arrived.
CREATE TABLE daemon_heartbeat (
    name text COLLATE "C" PRIMARY KEY,
    boot uuid NOT NULL,
    sequence bigint NOT NULL,
    clock timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    content text NOT NULL
);
