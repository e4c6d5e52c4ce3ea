-- Usage of resources by day, as the SKUs of price books measure it: docs/usage.rst.

-- How usage is measured, as JSON: the part of a SKU that its quantities depend on, and the time zone of the days.
CREATE TABLE usage_sku (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea NOT NULL UNIQUE,
    definition text NOT NULL
);

-- The values that prices match on, as a JSON object; hash is the SHA-256 of its text.
CREATE TABLE usage_values (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    document jsonb NOT NULL
);

-- Names that usage refers to: garbage collection keeps them after the last sample has expired.
CREATE TABLE usage_resource (
    resource_id integer PRIMARY KEY
);
CREATE TABLE usage_project (
    project_id integer PRIMARY KEY
);

-- Days of a SKU whose usage is kept, as it was computed from start until finish, of samples that were recorded until as_of.
-- A day with as_of -infinity is computed again.
CREATE TABLE usage_day (
    start timestamptz NOT NULL,
    finish timestamptz NOT NULL,
    as_of timestamptz NOT NULL,
    sku_id integer NOT NULL,
    day date NOT NULL,
    PRIMARY KEY (sku_id, day)
);

-- The usage of a resource on a day, in the unit of the SKU.
CREATE TABLE usage_atom (
    sku_id integer NOT NULL,
    day date NOT NULL,
    resource_id integer NOT NULL,
    project_id integer NOT NULL,
    values_id integer NOT NULL,
    unmetered_seconds integer NOT NULL,
    quantity numeric NOT NULL,
    PRIMARY KEY (sku_id, day, resource_id, project_id, values_id)
);
CREATE INDEX usage_atom_project ON usage_atom (project_id, sku_id, day);

-- When resources existed, and for which project, as far as it is known: gauges are integrated within these times.
-- While an instance is off, nobody need measure its gauges.
CREATE TABLE usage_life (
    began timestamptz NOT NULL,
    ended timestamptz NOT NULL,
    resource_id integer NOT NULL,
    project_id integer NOT NULL,
    is_off boolean NOT NULL,
    PRIMARY KEY (resource_id, began)
);

-- Returns numerator / denominator, rounded once, half to even, to 9 decimals. Both are exact, and the denominator is positive.
CREATE FUNCTION rated_quantity(numerator numeric, denominator numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    whole numeric := div(numerator * 1000000000, denominator);
    twice numeric := 2 * abs(numerator * 1000000000 - whole * denominator);
BEGIN
    IF twice > denominator OR (twice = denominator AND mod(whole, 2) <> 0) THEN
        whole := whole + sign(numerator);
    END IF;
    RETURN round(whole * 0.000000001, 9);
END
$$;
