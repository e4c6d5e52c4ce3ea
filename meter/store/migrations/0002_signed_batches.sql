-- Meter's own signature covers a batch of messages: docs/keys.rst. It is stored once, and a sample has its place in the batch;
-- batch_id is 0 for samples without such a signature. Columns are appended: that does not rewrite the table.
ALTER TABLE sample
    ADD COLUMN batch_id bigint NOT NULL DEFAULT 0,
    ADD COLUMN batch_position smallint NOT NULL DEFAULT 0;

-- uuid, first, last and mac are the signature's. first and last are the earliest and the latest timestamp of the messages.
-- checks: the first four bytes of the digest of each message, which tell an altered message from the others.
CREATE TABLE signed_batch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid uuid NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    mac bytea NOT NULL,
    checks bytea NOT NULL,
    CONSTRAINT signed_batch_key UNIQUE (uuid, mac)
);
CREATE INDEX signed_batch_last ON signed_batch (last);

-- Messages of a batch that were not stored, and why: duplicate or refused. mac is the collector's signature of this statement.
CREATE TABLE unstored_entry (
    batch_id bigint NOT NULL REFERENCES signed_batch ON DELETE CASCADE,
    position smallint NOT NULL,
    reason text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (batch_id, position)
);
