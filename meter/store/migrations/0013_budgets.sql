-- Budgets and webhooks: docs/budgets.rst.
-- document: the state of a budget in a period (year and month), as it was evaluated last. project: the project whose budget it is,
-- null for budgets of an account, a domain or all.
CREATE TABLE budget_state (
    budget text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL,
    project text COLLATE "C",
    evaluated_at timestamptz NOT NULL,
    document text NOT NULL,
    PRIMARY KEY (budget, period)
);
CREATE INDEX budget_state_project ON budget_state (project, budget, period) WHERE project IS NOT NULL;

-- Thresholds that were reached, so that each is told once in a period.
CREATE TABLE reached_threshold (
    budget text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL,
    basis text COLLATE "C" NOT NULL CHECK (basis IN ('used', 'forecast')),
    percent numeric NOT NULL,
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (period, budget, basis, percent)
);

-- Webhooks that wait for delivery, or have failed (next_attempt_at is null). A delivered webhook is deleted.
CREATE TABLE webhook (
    id text COLLATE "C" PRIMARY KEY,
    target text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL,
    retry_until timestamptz NOT NULL,
    next_attempt_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    last_error text NOT NULL DEFAULT ''
);
CREATE INDEX webhook_due ON webhook (target, created_at, id) WHERE next_attempt_at IS NOT NULL;
