-- What trackers sent, stored before it is acted upon. A delivery that is sent again finds its row.
create table webhook_deliveries (
    connection_id uuid not null references connections (id) on delete cascade,
    delivery_id text not null,
    event text not null,
    headers jsonb not null default '{}', -- those that say something; never one that proves something
    payload bytea not null, -- the body as it came, because its bytes are what was signed
    signature text not null check (signature in ('hmac', 'jwt', 'token', 'address')), -- how it was proven
    issues jsonb not null default '[]', -- what to ask the source for again
    status text not null check (status in ('pending', 'processing', 'done', 'ignored', 'failed')),
    error text, -- why it is ignored or failed, or failed the last time
    attempts integer not null default 0,
    retry_at timestamptz,
    repeats integer not null default 0, -- how often it was sent again
    job_id uuid references jobs (id) on delete set null,
    received_at timestamptz not null default now(),
    settled_at timestamptz,
    primary key (connection_id, delivery_id)
);
create index webhook_deliveries_listed on webhook_deliveries (connection_id, received_at desc, delivery_id desc);
create index webhook_deliveries_by_status on webhook_deliveries (connection_id, status, received_at desc, delivery_id desc);
create index webhook_deliveries_open on webhook_deliveries (connection_id, received_at)
    where status in ('pending', 'processing');
create index webhook_deliveries_job on webhook_deliveries (job_id) where job_id is not null;
create index webhook_deliveries_old on webhook_deliveries (received_at);

-- Calls that proved nothing are counted, not kept: anybody may send them.
create table webhook_refusals (
    connection_id uuid primary key references connections (id) on delete cascade,
    refusals bigint not null,
    reason text not null,
    last_at timestamptz not null
);

create index jobs_webhook on jobs (connection_id) where requested_by = 'webhook';
