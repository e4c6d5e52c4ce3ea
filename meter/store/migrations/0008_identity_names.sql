-- What is known about the names of projects, domains and users: docs/identity-names.rst. Names with their times are derived from
-- these tables (meter/completeness/identities/identity_history.py), the same whatever the order in which reports arrive.

-- What an identity was called when it was seen, as far as that differs from the row before: name NULL, it did not exist.
-- exact: seen is the time of the change. not_before: the last complete list before seen, in which it was otherwise.
CREATE TABLE identity_name (
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('project', 'domain', 'user')),
    identity text COLLATE "C" NOT NULL,
    origin text COLLATE "C" NOT NULL,
    seen timestamptz NOT NULL,
    name text COLLATE "C",
    domain text COLLATE "C",
    exact boolean NOT NULL,
    not_before timestamptz,
    PRIMARY KEY (kind, identity, origin, seen)
);
CREATE INDEX identity_name_name ON identity_name (name, kind, identity);

-- Notifications, which have the time of a change and not the name.
CREATE TABLE identity_change (
    kind text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    change text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, identity, at, change)
);

-- Complete lists: of all identities of a kind with an id after after_identity and not after until_identity (NULL: without end).
CREATE TABLE identity_list (
    kind text COLLATE "C" NOT NULL,
    origin text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    after_identity text COLLATE "C" NOT NULL,
    until_identity text COLLATE "C",
    PRIMARY KEY (kind, origin, at, after_identity)
);
