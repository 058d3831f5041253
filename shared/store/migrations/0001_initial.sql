-- Jobs, their batches and rejections, issues and projects, and who may call.

create table jobs (
    id uuid primary key,
    source text not null,
    import_source text not null,
    kind text not null default 'issues' check (kind in ('issues', 'projects')),
    state text not null default 'queued'
        check (state in ('queued', 'processing', 'retrying', 'completed', 'failed', 'cancelled')),
    priority text not null default 'normal' check (priority in ('critical', 'high', 'normal', 'low')),
    priority_rank smallint not null generated always as (
        case priority when 'critical' then 0 when 'high' then 1 when 'normal' then 2 else 3 end
    ) stored,
    options jsonb not null default '{}',
    file_name text,
    file_container text,
    file_blob text,
    file_bytes bigint, -- null: an upload URL was given out and the file is still awaited
    file_etag text,
    index_blob text,
    upload_expires_at timestamptz,
    parent_id uuid references jobs (id) on delete set null,
    idempotency_key text,
    requested_by text not null,
    attempt integer not null default 0,
    layout jsonb,
    planned_at timestamptz,
    rows_total bigint,
    batches_total integer,
    error jsonb,
    warnings jsonb not null default '[]',
    retry_at timestamptz,
    cancel_requested boolean not null default false,
    created_at timestamptz not null default now(),
    claimed_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    updated_at timestamptz not null default now()
);
create unique index jobs_idempotency on jobs (requested_by, idempotency_key) where idempotency_key is not null;
create index jobs_waiting on jobs (priority_rank, created_at) where state = 'queued';
create index jobs_running on jobs (import_source) where state in ('processing', 'retrying');
create index jobs_history on jobs (created_at desc, id desc);
create index jobs_ended on jobs (finished_at) where finished_at is not null;

create table job_batches (
    job_id uuid not null references jobs (id) on delete cascade,
    number integer not null,
    byte_offset bigint not null,
    byte_length bigint not null,
    first_row bigint not null,
    rows integer not null,
    index_offset bigint not null,
    index_length bigint not null,
    losers integer[] not null default '{}', -- positions of records that another row of the file supersedes
    phase text not null default 'load' check (phase in ('check', 'load')),
    state text not null default 'waiting' check (state in ('waiting', 'done', 'failed')),
    attempts integer not null default 0,
    created integer not null default 0,
    updated integer not null default 0,
    unchanged integer not null default 0,
    stale integer not null default 0,
    skipped integer not null default 0,
    duplicates integer not null default 0,
    rejected integer not null default 0,
    error jsonb,
    finished_at timestamptz,
    primary key (job_id, phase, number)
);

create table sync_logs (
    id bigint generated always as identity primary key,
    job_id uuid not null references jobs (id) on delete cascade,
    level text not null check (level in ('info', 'warning', 'error')),
    message text not null,
    data jsonb not null default '{}',
    created_at timestamptz not null default now()
);
create index sync_logs_job on sync_logs (job_id, id);

create table rejections (
    id bigint generated always as identity primary key,
    job_id uuid not null references jobs (id) on delete cascade,
    batch integer not null,
    row_number bigint not null,
    external_id text,
    problems jsonb not null,
    payload jsonb not null,
    state text not null default 'open' check (state in ('open', 'replayed', 'dismissed')),
    replay_job_id uuid references jobs (id) on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index rejections_job on rejections (job_id, state, id);
create index rejections_batch on rejections (job_id, batch);
create index rejections_replay on rejections (replay_job_id) where replay_job_id is not null;

create table issues (
    import_source text not null,
    external_id text not null,
    key text,
    title text not null,
    description text,
    type text,
    status text,
    status_category text not null check (status_category in ('open', 'in_progress', 'done')),
    priority text,
    severity text check (severity in ('critical', 'high', 'medium', 'low')),
    assignee text,
    reporter text,
    labels jsonb not null default '[]',
    components jsonb not null default '[]',
    project text,
    parent text,
    sprint text,
    environment jsonb,
    stack_trace text,
    url text,
    due_on date,
    resolution text,
    story_points numeric,
    estimate_seconds bigint,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    resolved_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    primary key (import_source, external_id)
) with (toast_tuple_target = 8160); -- Compressing rows of 2 to 8 kB costs more than it saves.
create index issues_updated on issues (source_updated_at desc nulls last, import_source, external_id);
create index issues_status on issues (import_source, status_category);
create index issues_assignee on issues (assignee) where assignee is not null;

create table issue_changes (
    id bigint generated always as identity primary key,
    import_source text not null,
    external_id text not null,
    job_id uuid not null,
    changes jsonb not null,
    changed_at timestamptz not null default now()
);
create index issue_changes_issue on issue_changes (import_source, external_id, id);

create table projects (
    import_source text not null,
    external_id text not null,
    name text not null,
    repository_url text,
    description text,
    owner text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    primary key (import_source, external_id)
);

create table pipeline (
    only_row boolean primary key default true check (only_row),
    paused boolean not null default false,
    updated_at timestamptz not null default now()
);
insert into pipeline default values;

create table audit_log (
    id bigint generated always as identity primary key,
    actor text not null,
    action text not null,
    subject text not null,
    before jsonb,
    after jsonb,
    created_at timestamptz not null default now()
);
create index audit_log_subject on audit_log (subject, id);

create table api_keys (
    id uuid primary key,
    name text not null,
    role text not null check (role in ('reader', 'operator', 'admin')),
    secret_hash bytea not null unique,
    prefix text not null,
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

-- Unlogged: losing a minute's counters in a crash costs nothing, writing WAL for every request would.
create unlogged table request_counts (
    client text not null,
    window_start timestamptz not null,
    requests integer not null,
    primary key (client, window_start)
);

-- What changed between two versions of a record, field by field. Both sides are built from the same column list.
create function record_diff(old jsonb, new jsonb) returns jsonb language sql immutable parallel safe as $$
    select coalesce(jsonb_object_agg(n.key, jsonb_build_object('from', o.value, 'to', n.value)), '{}')
      from jsonb_each(new) n
      join jsonb_each(old) o on o.key = n.key
     where n.value is distinct from o.value
$$;
