-- Rollups that also answer about metadata, and for all resources of an owner at once: docs/decisions/0008-rollups.rst.

-- Merges counts, sums, and sums of squared distances from the mean, {count, total, deviation}, without cancelling digits.
CREATE AGGREGATE spread (double precision[]) (
    SFUNC = float8_combine,
    STYPE = double precision[],
    INITCOND = '{0,0,0}',
    COMBINEFUNC = float8_combine,
    PARALLEL = SAFE
);

-- A rollup tells a stretch of samples that share their metadata. Stretch 0 is a whole hour in which they changed too
-- often, or a rollup made before this: metadata_id is 0 then, and questions about metadata go to the samples.
ALTER TABLE rollup ADD COLUMN stretch smallint NOT NULL DEFAULT 0;
ALTER TABLE rollup ADD COLUMN metadata_id integer NOT NULL DEFAULT 0;
ALTER TABLE rollup ALTER COLUMN stretch DROP DEFAULT;
ALTER TABLE rollup ALTER COLUMN metadata_id DROP DEFAULT;
ALTER TABLE rollup DROP CONSTRAINT rollup_pkey;
ALTER TABLE rollup ADD PRIMARY KEY (hours, series_id, start, stretch);

-- Rollups of a series without resource, which has no samples, are the totals of all resources that a meter, a user, a
-- project and a source have in common. They tell nothing of steps.
INSERT INTO series (meter_id, resource_id, user_id, project_id, source_id, needed_until)
SELECT meter_id, 0, user_id, project_id, source_id, max(needed_until)
FROM series WHERE id IN (SELECT series_id FROM rollup)
GROUP BY meter_id, user_id, project_id, source_id;

INSERT INTO rollup (start, hours, series_id, stretch, metadata_id,
    first, last, count, smallest, largest, total, deviation, first_volume, last_volume, increase, integral)
SELECT r.start, r.hours, o.id, 0, 0, min(r.first), max(r.last), sum(r.count), min(r.smallest), max(r.largest), sum(r.total),
    (spread(ARRAY[r.count, r.total, r.deviation]))[3], 0, 0, 0, 0
FROM rollup r JOIN series x ON x.id = r.series_id
JOIN series o ON (o.meter_id, o.resource_id, o.user_id, o.project_id, o.source_id)
    = (x.meter_id, 0, x.user_id, x.project_id, x.source_id)
GROUP BY r.start, r.hours, o.id
ORDER BY r.start, o.id;
