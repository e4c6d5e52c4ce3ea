-- Rows of eight bytes less, and dictionaries that can be swept: docs/decisions/0005-store-layout.rst says how.
-- The samples are written anew, and nobody reads or writes meanwhile: docs/store.rst says how long that takes.

ALTER TABLE metadata ALTER COLUMN id TYPE integer;
ALTER TABLE sample ALTER COLUMN metadata_id TYPE integer;

-- No sample of a time after this, and nothing made of one, refers to a row. Collectors of the version before do not know
-- of it: what they use they may go on to use for four weeks, and what they make is kept for ever.
ALTER TABLE series ADD COLUMN needed_until timestamptz NOT NULL DEFAULT date_trunc('week', now()) + interval '5 weeks';
ALTER TABLE series ALTER COLUMN needed_until SET DEFAULT 'infinity';
ALTER TABLE metadata ADD COLUMN needed_until timestamptz NOT NULL DEFAULT date_trunc('week', now()) + interval '5 weeks';
ALTER TABLE metadata ALTER COLUMN needed_until SET DEFAULT 'infinity';
ALTER TABLE form ADD COLUMN needed_until timestamptz NOT NULL DEFAULT date_trunc('week', now()) + interval '5 weeks';
ALTER TABLE form ALTER COLUMN needed_until SET DEFAULT 'infinity';

UPDATE series SET needed_until = newest
FROM (SELECT series_id, max(timestamp) AS newest FROM sample WHERE timestamp > now() GROUP BY series_id) AS used
WHERE used.series_id = series.id AND newest > needed_until;
UPDATE metadata SET needed_until = newest
FROM (SELECT metadata_id, max(timestamp) AS newest FROM sample WHERE timestamp > now() GROUP BY metadata_id) AS used
WHERE used.metadata_id = metadata.id AND newest > needed_until;
UPDATE form SET needed_until = newest
FROM (SELECT form_id, max(timestamp) AS newest FROM sample WHERE timestamp > now() GROUP BY form_id) AS used
WHERE used.form_id = form.id AND newest > needed_until;

-- How many rows of each dictionary nobody needed any more, so far.
CREATE TABLE swept (
    dictionary text COLLATE "C" PRIMARY KEY,
    rows bigint NOT NULL,
    at timestamptz NOT NULL
);
