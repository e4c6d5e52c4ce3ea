-- Closed statements of rating: docs/statements.rst. Nothing of them is ever changed.

-- The price books by which closed statements were rated.
CREATE TABLE price_book (
    sha256 text PRIMARY KEY CHECK (sha256 = encode(sha256(convert_to(text, 'UTF8')), 'hex')),
    text text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);

-- document is the signed statement as JSON; the other columns repeat what is searched for. sha256 is that of the canonical form,
-- previous_sha256 that of the account's statement before, so that no statement can have two that follow it.
CREATE TABLE statement (
    id text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    account_name text NOT NULL,
    period text COLLATE "C" NOT NULL CHECK (period ~ '^\d{4}-\d{2}$'),
    currency text NOT NULL,
    total text NOT NULL,
    as_of timestamptz NOT NULL,
    closed_at timestamptz NOT NULL,
    closed_by text NOT NULL,
    book_sha256 text NOT NULL REFERENCES price_book,
    sha256 text NOT NULL,
    previous_sha256 text NOT NULL,
    usage_skus text[] NOT NULL,
    document text NOT NULL,
    UNIQUE (account_id, period),
    UNIQUE (account_id, previous_sha256)
);
CREATE INDEX statement_period ON statement (period, account_id);

-- The parts of a statement are inserted before it, in one transaction: once it is there, none can be added.

-- The projects that have lines or usage in a statement.
CREATE TABLE statement_project (
    statement_id text COLLATE "C" NOT NULL REFERENCES statement DEFERRABLE INITIALLY DEFERRED,
    project_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (project_id, statement_id)
);
CREATE INDEX statement_project_statement ON statement_project (statement_id);

-- What a statement used up of each credit: a positive amount.
CREATE TABLE statement_credit (
    statement_id text COLLATE "C" NOT NULL REFERENCES statement DEFERRABLE INITIALLY DEFERRED,
    credit text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (statement_id, credit)
);

-- The annex of a statement: its lines in order, each page those of one project, compressed (zlib).
CREATE TABLE statement_annex (
    statement_id text COLLATE "C" NOT NULL REFERENCES statement DEFERRABLE INITIALLY DEFERRED,
    page integer NOT NULL,
    rows integer NOT NULL,
    project_id text COLLATE "C" NOT NULL,
    lines bytea NOT NULL,
    PRIMARY KEY (statement_id, page)
);
ALTER TABLE statement_annex ALTER COLUMN lines SET STORAGE EXTERNAL;

CREATE FUNCTION refuse_change_of_statements() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'closed statements never change: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'What arrives later becomes correction lines of the next statement.';
END
$$;

CREATE FUNCTION refuse_addition_to_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Under the lock of a close, a statement that another transaction adds meanwhile is seen, unless by an older snapshot.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'closed statements never change: INSERT into % is refused, because the transaction is not read committed',
            TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pg_advisory_xact_lock(120282511929863);
    IF EXISTS (SELECT FROM statement s WHERE s.id = NEW.statement_id) THEN
        RAISE EXCEPTION 'closed statements never change: INSERT into % is refused, because % is closed', TG_TABLE_NAME, NEW.statement_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER statement_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON statement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_statements();
CREATE TRIGGER price_book_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON price_book
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_statements();
CREATE TRIGGER statement_project_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_project
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_statements();
CREATE TRIGGER statement_project_is_complete BEFORE INSERT ON statement_project
    FOR EACH ROW EXECUTE FUNCTION refuse_addition_to_statement();
CREATE TRIGGER statement_credit_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_credit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_statements();
CREATE TRIGGER statement_credit_is_complete BEFORE INSERT ON statement_credit
    FOR EACH ROW EXECUTE FUNCTION refuse_addition_to_statement();
CREATE TRIGGER statement_annex_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_annex
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_statements();
CREATE TRIGGER statement_annex_is_complete BEFORE INSERT ON statement_annex
    FOR EACH ROW EXECUTE FUNCTION refuse_addition_to_statement();

-- Also in sessions that replicate, in which other triggers do not run.
ALTER TABLE statement ENABLE ALWAYS TRIGGER statement_never_changes;
ALTER TABLE price_book ENABLE ALWAYS TRIGGER price_book_never_changes;
ALTER TABLE statement_project ENABLE ALWAYS TRIGGER statement_project_never_changes;
ALTER TABLE statement_credit ENABLE ALWAYS TRIGGER statement_credit_never_changes;
ALTER TABLE statement_annex ENABLE ALWAYS TRIGGER statement_annex_never_changes;
