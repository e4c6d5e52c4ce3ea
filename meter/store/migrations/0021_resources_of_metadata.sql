-- Which resources have, or had, samples with which metadata: a question about the metadata of few resources reads the samples and rollups
-- of these alone (docs/decisions/0035-resources-of-metadata.rst). Triggers on sample add the missing rows, in the transaction that inserts the
-- samples. Triggers on metadata and resource delete the rows of what is deleted as unused. There may be rows of which no sample is left.
CREATE TABLE metadata_resource (
    metadata_id integer NOT NULL,
    resource_id integer NOT NULL,
    PRIMARY KEY (metadata_id, resource_id)
);
CREATE INDEX metadata_resource_resource ON metadata_resource (resource_id);

-- Finds documents by the value under a key. Without a list of pending entries: a search would read all of that.
CREATE INDEX metadata_document ON metadata USING gin (document jsonb_path_ops) WITH (fastupdate = off);

-- Each series and each row is looked up by an index (OFFSET 0), whatever number of rows PostgreSQL expects: a session plans the statement once,
-- maybe when the tables are empty.
CREATE FUNCTION add_resources_of_metadata() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO metadata_resource (metadata_id, resource_id)
    SELECT pair.metadata_id, pair.resource_id
    FROM (
        SELECT DISTINCT s.metadata_id, x.resource_id
        FROM stored s CROSS JOIN LATERAL (SELECT x.resource_id FROM series x WHERE x.id = s.series_id OFFSET 0) x
        OFFSET 0
    ) AS pair
    WHERE NOT EXISTS (
        SELECT FROM metadata_resource known
        WHERE known.metadata_id = pair.metadata_id AND known.resource_id = pair.resource_id OFFSET 0
    )
    ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION delete_resources_of_metadata() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM metadata_resource WHERE metadata_id = ANY(ARRAY(SELECT id FROM deleted));
    RETURN NULL;
END
$$;
CREATE TRIGGER resources_of_metadata AFTER DELETE ON metadata REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION delete_resources_of_metadata();

CREATE FUNCTION delete_metadata_of_resources() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM metadata_resource WHERE resource_id = ANY(ARRAY(SELECT id FROM deleted));
    RETURN NULL;
END
$$;
CREATE TRIGGER metadata_of_resources AFTER DELETE ON resource REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION delete_metadata_of_resources();

-- One row: of samples from this time on, all resources are known. Citus has no triggers on distributed tables: a spread store knows none.
CREATE TABLE metadata_known (
    since timestamptz NOT NULL
);
DO $$
BEGIN
    IF to_regclass('spread_store') IS NOT NULL THEN
        INSERT INTO metadata_known VALUES ('infinity');
        RETURN;
    END IF;
    CREATE TRIGGER resources_of_inserted AFTER INSERT ON sample REFERENCING NEW TABLE AS stored
        FOR EACH STATEMENT EXECUTE FUNCTION add_resources_of_metadata();
    CREATE TRIGGER resources_of_updated AFTER UPDATE ON sample REFERENCING NEW TABLE AS stored
        FOR EACH STATEMENT EXECUTE FUNCTION add_resources_of_metadata();
    -- Samples in the future are few, sent by hosts with wrong clocks. Without their resources none would be known before their times.
    INSERT INTO metadata_resource (metadata_id, resource_id)
    SELECT DISTINCT s.metadata_id, x.resource_id FROM sample s JOIN series x ON x.id = s.series_id
    WHERE s.wire_format_id >= -2147483648 AND s.timestamp > now();
    INSERT INTO metadata_known
    SELECT coalesce(greatest(
        (SELECT max(s.timestamp) FROM sample s WHERE s.wire_format_id >= -2147483648 AND s.timestamp <= now()),
        (SELECT max(p.last) FROM packed_samples p WHERE p.count > 0),
        (SELECT max(r.last) FROM rollup r WHERE r.metadata_run >= -32768
            AND r.start = (SELECT max(latest.start) FROM rollup latest WHERE latest.metadata_run >= -32768))
    ) + interval '1 microsecond', '-infinity');
END
$$;
