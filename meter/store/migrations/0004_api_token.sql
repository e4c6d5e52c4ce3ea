-- Tokens of the API that meter-token makes: docs/tokens.rst. Only the SHA-256 of a token is stored.
-- project_id is null for an administrator's token, expires_at for one that does not expire. A token stays here after it has
-- expired or was revoked, until meter-token purge deletes it.
CREATE TABLE api_token (
    id text COLLATE "C" PRIMARY KEY,
    sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    is_admin boolean NOT NULL,
    project_id text COLLATE "C",
    user_id text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    CHECK (is_admin = (project_id IS NULL)),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
