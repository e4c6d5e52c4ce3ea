-- What a text says of time, null where it says none: metadata are compared with times.

CREATE FUNCTION moment_of(written text) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF written ~ '^\d{4}-\d\d-\d\d' THEN
        RETURN written::timestamptz;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;
