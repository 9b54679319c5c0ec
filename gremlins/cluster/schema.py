"""The tables of a cluster, as numbered migrations. One that has been released is never changed again."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE gremlin (
        id text PRIMARY KEY,
        uid text NOT NULL,
        remote text NOT NULL,
        needs text NOT NULL,
        fence bigint NOT NULL DEFAULT 1,
        held_by bigint,
        host text,
        due timestamptz,
        parked boolean NOT NULL DEFAULT false,
        account text,
        crashes integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX gremlin_due ON gremlin (due) WHERE due IS NOT NULL;
    CREATE INDEX gremlin_account ON gremlin (account) WHERE account IS NOT NULL;

    CREATE TABLE document (
        gremlin text NOT NULL REFERENCES gremlin ON DELETE CASCADE,
        name text NOT NULL,
        content bytea NOT NULL,
        fence bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (gremlin, name)
    );

    CREATE TABLE line (
        n bigserial PRIMARY KEY,
        gremlin text NOT NULL REFERENCES gremlin ON DELETE CASCADE,
        name text NOT NULL,
        key uuid NOT NULL UNIQUE,
        content bytea NOT NULL
    );
    CREATE INDEX line_of ON line (gremlin, name, n);

    CREATE TABLE waiting (
        gremlin text NOT NULL REFERENCES gremlin ON DELETE CASCADE,
        batch_id text NOT NULL,
        account text NOT NULL,
        submitted_at timestamptz NOT NULL,
        PRIMARY KEY (gremlin, batch_id)
    );
    CREATE INDEX waiting_by_account ON waiting (account);

    CREATE TABLE account (
        fingerprint text PRIMARY KEY,
        polled_at timestamptz,
        next_poll timestamptz NOT NULL DEFAULT now(),
        requests bigint NOT NULL DEFAULT 0
    );

    CREATE TABLE spending (
        uid text NOT NULL,
        call text NOT NULL,
        gremlin text NOT NULL,
        bead_id text,
        lines bytea NOT NULL,
        reserved_usd double precision NOT NULL DEFAULT 0,
        running_usd double precision NOT NULL DEFAULT 0,
        batches text[] NOT NULL DEFAULT '{}',
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (uid, call)
    );
    CREATE INDEX spending_at ON spending (at);
    """,
)
"""`gremlin.due`: when it goes on by itself; null: not by itself. `parked`: its own process has said so, and ended.
`held_by`: the engine's worker that runs a step of it. `fence`: one more each time that it is taken. `account`: it waits
for batches of this one, and a poll wakes it. `crashes`: ends of its process in a row that left the record as it was."""

VERSION = len(MIGRATIONS)
