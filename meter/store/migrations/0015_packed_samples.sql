-- Old weeks are packed: one row for the samples of a series in a week instead of one row each (docs/decisions/0021-packed-weeks.rst).
-- A sample is either in sample or in packed_samples. Late samples of packed weeks are in sample until the week is packed again.

-- Samples of a series in one week, in the order of timestamp and message_id, as arrays with an element each: at most 4096 samples;
-- part numbers the rows of a series and week from 0. The n-th timestamp is first + (n - 1) * step + time_offsets[n], in
-- microseconds; recorded_at is later by delays[n] microseconds. Where such a number does not fit into 32 bits, the times themselves
-- are in times and recorded_times, and time_offsets or delays is null. least_offset and greatest_offset bound time_offsets.
-- A signature of 32 bytes is in signatures_left (its first half) and signatures_right; signatures has those of other lengths.
-- Null for signatures_left and signatures: no sample is signed by itself. verbatim_jsons and batch_ids are null where all elements would be
-- '' or 0.
CREATE TABLE packed_samples (
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    last_recorded timestamptz NOT NULL,
    step bigint NOT NULL,
    series_id integer NOT NULL,
    count integer NOT NULL,
    least_offset integer NOT NULL,
    greatest_offset integer NOT NULL,
    part smallint NOT NULL,
    time_offsets integer[],
    times timestamptz[],
    delays integer[],
    recorded_times timestamptz[],
    message_ids uuid[] NOT NULL,
    volumes double precision[] NOT NULL,
    metadata_ids integer[] NOT NULL,
    wire_format_ids integer[] NOT NULL,
    signatures_left uuid[],
    signatures_right uuid[],
    signatures bytea[],
    verbatim_jsons text[],
    batch_ids bigint[],
    batch_positions smallint[],
    PRIMARY KEY (series_id, first, part)
) PARTITION BY RANGE (first);

-- Serves only statements that repeat its condition, like the index on the timestamp of samples.
CREATE INDEX packed_samples_last ON packed_samples (last) WHERE count > 0;

-- Likewise. Samples that were recorded late are packed late, and live streams ask for what was recorded last.
CREATE INDEX packed_samples_recorded ON packed_samples (last_recorded) WHERE part >= 0;

-- The weeks (Mondays) that are packed or are being packed. packed_at: when packing finished, null until then.
-- id_buckets: the number of buckets of packed_message_id. indexed_until: the ids and batches of all samples of the week that were recorded
-- before are in packed_message_id and packed_batch, whether packed or not.
CREATE TABLE packed_week (
    week date PRIMARY KEY,
    packed_at timestamptz,
    id_buckets integer NOT NULL,
    indexed_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- In which series the ids of a packed week are. message_id_key() makes a key of an id; its bucket is key % id_buckets, and
-- fingerprints[n] is (key / id_buckets) % 65536 - 32768 of an id in the series series_ids[n]. Different ids can have one fingerprint, so what
-- is found is a candidate. part: rows are added for samples that arrive late.
CREATE TABLE packed_message_id (
    week date NOT NULL,
    bucket integer NOT NULL,
    part integer NOT NULL,
    fingerprints smallint[] NOT NULL,
    series_ids integer[] NOT NULL,
    PRIMARY KEY (week, bucket, part)
);

-- The ids of one poll differ in their last 24 bits, and those of one series from poll to poll in the first 48 bits, the time
-- (meter/sample.py): of an id of version 7, only the other bits make the key, so that a series has few keys. From 0 to 2^60 - 1.
CREATE FUNCTION message_id_key(message_id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || left(md5(CASE WHEN get_byte(uuid_send(message_id), 6) >> 4 = 7
        THEN substr(uuid_send(message_id), 7) ELSE uuid_send(message_id) END), 15))::bit(60)::bigint
$$;

-- The series of a batch, in a packed week: samples are not found by batch otherwise. Batches of an agent have the same series poll
-- after poll, and share a list.
CREATE TABLE series_list (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    week date NOT NULL,
    hash bytea NOT NULL,
    series_ids integer[] NOT NULL,
    UNIQUE (week, hash)
);
CREATE TABLE packed_batch (
    batch_id bigint NOT NULL,
    week date NOT NULL,
    series_list_id integer NOT NULL,
    PRIMARY KEY (batch_id, week)
);
CREATE INDEX packed_batch_week ON packed_batch (week);
