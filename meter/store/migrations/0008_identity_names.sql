-- Names of projects, domains and users with their history: docs/completeness.rst. A name is valid from since until before until.
-- exact_since and exact_until: whether a notification told the time; otherwise the change was found then.
CREATE TABLE identity_name (
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('project', 'domain', 'user')),
    identity text COLLATE "C" NOT NULL,
    name text NOT NULL,
    domain text COLLATE "C" NOT NULL,
    origin text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL DEFAULT 'infinity',
    exact_since boolean NOT NULL,
    exact_until boolean NOT NULL DEFAULT false,
    PRIMARY KEY (kind, identity, since)
);
CREATE INDEX identity_name_name ON identity_name (kind, name);
