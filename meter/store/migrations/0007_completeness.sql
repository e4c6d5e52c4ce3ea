-- The completeness ledger: docs/completeness.rst. What agents polled is stored as run lengths, exceptions as rows.

-- An agent is daemon@host. last_due is the time of the newest cycle that it reported; newest_boot is the boot whose series count.
CREATE TABLE agent (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    daemon text COLLATE "C" NOT NULL,
    host text COLLATE "C" NOT NULL,
    newest_boot uuid,
    last_due timestamptz NOT NULL DEFAULT '-infinity'
);

-- One life of an agent's process. Its reports are applied in the order of their sequence numbers: applied is the number of the
-- last one. missing has the numbers below it that never came, as JSON: [[first, last], ...]. macs are the first eight bytes of the
-- signatures of the last 64 applied reports. stopped: the last report said that the agent stops.
CREATE TABLE agent_boot (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    boot uuid NOT NULL,
    first_due timestamptz NOT NULL,
    last_due timestamptz NOT NULL,
    applied bigint NOT NULL,
    stopped boolean NOT NULL DEFAULT false,
    missing text NOT NULL DEFAULT '[]',
    macs bytea NOT NULL DEFAULT '',
    PRIMARY KEY (agent_id, boot)
);

-- Reports that arrived before one with a lower number: they wait, at most 1 000 of a boot. whole: a poll in it lists all its series.
CREATE TABLE waiting_report (
    agent_id integer NOT NULL,
    boot uuid NOT NULL,
    sequence bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    mac bytea NOT NULL,
    whole boolean NOT NULL,
    content text NOT NULL,
    PRIMARY KEY (agent_id, boot, sequence),
    FOREIGN KEY (agent_id, boot) REFERENCES agent_boot ON DELETE CASCADE
);

-- Cycles with one interval that followed each other without one missing: a healthy agent has one row a day, in UTC. interval is in
-- seconds. pollsters are the names of those that were due in each of these cycles; one that was not asked has a polling_exception.
-- first_sequence is the number of the report of the first cycle.
CREATE TABLE cycle_run (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    boot uuid NOT NULL,
    interval double precision NOT NULL,
    first_sequence bigint NOT NULL,
    first_due timestamptz NOT NULL,
    last_due timestamptz NOT NULL,
    cycles integer NOT NULL,
    pollsters text[] COLLATE "C" NOT NULL,
    PRIMARY KEY (agent_id, boot, interval, first_sequence)
);
CREATE INDEX cycle_run_first_due ON cycle_run (agent_id, interval, first_due);
CREATE INDEX cycle_run_last_due ON cycle_run (last_due);

-- Lists of meters that are measured together.
CREATE TABLE meter_list (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    meters text[] COLLATE "C" NOT NULL
);

-- What an agent measures: one sample of each meter of the list, of this resource, in each cycle from first_due, until before
-- until_due. ended: why, if the agent said it: gone, migrated. Texts, not ids of other tables: a resource may never have had a sample.
CREATE TABLE metered_resource (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    pollster text COLLATE "C" NOT NULL,
    interval double precision NOT NULL,
    resource text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    meter_list_id integer NOT NULL REFERENCES meter_list,
    first_due timestamptz NOT NULL,
    until_due timestamptz NOT NULL DEFAULT 'infinity',
    ended text NOT NULL DEFAULT '',
    PRIMARY KEY (resource, agent_id, pollster, meter_list_id, project, first_due)
);
CREATE INDEX metered_resource_project ON metered_resource (project, until_due);
CREATE INDEX metered_resource_agent ON metered_resource (agent_id, pollster, until_due);
CREATE UNIQUE INDEX metered_resource_open ON metered_resource (resource, agent_id, pollster, meter_list_id, project, interval)
    WHERE until_due = 'infinity';
CREATE INDEX metered_resource_until ON metered_resource (until_due) WHERE until_due < 'infinity';

-- What was not as usual: samples that were not made or were lost, and why, from from_time until before until_time.
-- cause is one of meter/completeness/ledger/causes.py. pollster '' stands for all; resource '' for all of the pollster. samples is
-- the number that the agent stated, 0 if it did not know it. interval is 0 where no single one is concerned. Consecutive cycles
-- with the same cause and reason are one row (cycles), at most one day.
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
CREATE INDEX polling_exception_until ON polling_exception (until_time);

-- Samples made between cycles, after an event of libvirt: they are expected beside those of the cycles.
CREATE TABLE off_schedule_poll (
    agent_id integer NOT NULL REFERENCES agent ON DELETE CASCADE,
    pollster text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    resource text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    meter_list_id integer NOT NULL REFERENCES meter_list,
    PRIMARY KEY (resource, agent_id, pollster, at, meter_list_id, project)
);
CREATE INDEX off_schedule_poll_project ON off_schedule_poll (project, at);
CREATE INDEX off_schedule_poll_at ON off_schedule_poll (at);

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

-- Samples that were dead-lettered, by hour of the sample: what the collector rejected is not missing without a trace. Rows of the
-- kind unverified are claims of somebody unknown. Beyond a number of rows an hour, meter, resource and project are ''.
CREATE TABLE rejected_sample (
    start timestamptz NOT NULL,
    meter text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (start, meter, resource, project, kind)
);

-- The last heartbeat of each daemon, as JSON, and the times of its clock and of the database when it arrived. earlier_boots are
-- those of its last processes: their heartbeats are ignored.
CREATE TABLE daemon_heartbeat (
    name text COLLATE "C" PRIMARY KEY,
    boot uuid NOT NULL,
    sequence bigint NOT NULL,
    clock timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    earlier_boots uuid[] NOT NULL DEFAULT '{}',
    content text NOT NULL
);
