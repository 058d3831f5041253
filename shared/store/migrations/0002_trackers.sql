-- Connections to trackers, their schedules, the ledger that proves a sync complete, and the streams beside issues.

create table connections (
    id uuid primary key,
    slug text not null unique check (slug ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    source text not null,
    base_url text not null,
    settings jsonb not null default '{}',
    credentials jsonb not null default '{}', -- field → sealed secret
    active boolean not null default true,
    origin text not null default 'api' check (origin in ('api', 'environment')),
    version integer not null default 1, -- grows with every change that makes an open connector stale
    tested_at timestamptz,
    test jsonb, -- what the last test found out, or why it failed
    test_passed boolean,
    blocked_until timestamptz, -- the source said "later"
    quota jsonb,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table schedules (
    connection_id uuid primary key references connections (id) on delete cascade,
    cron text not null default '*/15 * * * *',
    time_zone text not null default 'UTC',
    census_hours integer not null default 24 check (census_hours > 0),
    paused boolean not null default false,
    paused_reason text,
    next_run_at timestamptz not null,
    next_census_at timestamptz not null default now(),
    last_started_at timestamptz,
    failures integer not null default 0, -- in a row, of one class
    failure_class text,
    rung integer not null default 0, -- how far the cadence is slowed down
    updated_at timestamptz not null default now()
);
create index schedules_due on schedules (next_run_at) where not paused;

alter table jobs
    add column connection_id uuid references connections (id) on delete set null,
    add column sync jsonb, -- what a sync job is to do; null for files
    drop constraint jobs_kind_check,
    add constraint jobs_kind_check check (kind in ('issues', 'projects', 'sync'));
create index jobs_connection on jobs (connection_id, created_at desc) where connection_id is not null;

create index rejections_record on rejections (external_id) where state = 'open';

create table sync_windows (
    id bigint generated always as identity primary key,
    connection_id uuid not null references connections (id) on delete cascade,
    stream text not null,
    scope text not null,
    lo timestamptz not null, -- '-infinity' for the first
    hi timestamptz not null,
    state text not null default 'open' check (state in ('open', 'closed', 'abandoned')),
    job_id uuid references jobs (id) on delete set null,
    pages integer not null default 0,
    seen integer not null default 0,
    created integer not null default 0,
    updated integer not null default 0,
    unchanged integer not null default 0,
    digest numeric not null default 0, -- sum of the first 64 bits of content_hash of every record seen
    opened_at timestamptz not null default now(),
    closed_at timestamptz,
    check (lo <= hi)
);
create index sync_windows_line on sync_windows (connection_id, stream, scope, hi desc) where state = 'closed';
create index sync_windows_job on sync_windows (job_id) where state = 'open';

create table sync_parts (
    job_id uuid not null references jobs (id) on delete cascade,
    number integer not null,
    window_id bigint references sync_windows (id) on delete cascade,
    kind text not null check (kind in ('window', 'snapshot', 'census', 'keys')),
    stream text not null,
    scope text not null,
    scope_name text not null,
    since timestamptz,
    query jsonb not null default '{}',
    position jsonb,
    state text not null default 'waiting' check (state in ('waiting', 'done', 'failed', 'skipped')),
    claimed_attempt integer,
    claimed_lane integer,
    attempts integer not null default 0,
    retry_at timestamptz,
    pages integer not null default 0,
    requests integer not null default 0,
    gaps integer not null default 0, -- refusals met on the way: what was not shown may be there all the same
    counts jsonb not null default '{}', -- stream → created, updated, unchanged, stale, rejected, deleted, missed
    read_from timestamptz,
    error jsonb,
    finished_at timestamptz,
    primary key (job_id, number)
);

create table sync_states (
    connection_id uuid not null references connections (id) on delete cascade,
    stream text not null,
    scope text not null,
    scope_name text not null,
    cursor_at timestamptz,
    last_read_at timestamptz,
    last_census_at timestamptz,
    last_error jsonb,
    updated_at timestamptz not null default now(),
    primary key (connection_id, stream, scope)
);

create table coverage_gaps (
    connection_id uuid not null references connections (id) on delete cascade,
    stream text not null,
    scope text not null,
    trouble text not null,
    status integer,
    detail text not null,
    since timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    primary key (connection_id, stream, scope)
);

-- Ids a census, a full reading or a snapshot has seen; emptied when the job has compared them.
create unlogged table seen_ids (
    job_id uuid not null,
    stream text not null,
    external_id text not null,
    scope text not null,
    source_updated_at timestamptz,
    primary key (job_id, stream, external_id)
);

create table tracked_users (
    connection_id uuid not null references connections (id) on delete cascade,
    account text not null,
    name text,
    added_at timestamptz not null default now(),
    backfilled_at timestamptz,
    primary key (connection_id, account)
);

create table known_fields (
    connection_id uuid not null references connections (id) on delete cascade,
    stream text not null,
    path text not null,
    type text not null,
    first_seen_at timestamptz not null default now(),
    seen_job uuid, -- the last job in which a record had it, filled or empty
    vanished_at timestamptz,
    primary key (connection_id, stream, path)
);

alter table sync_logs
    alter column job_id drop not null,
    add column connection_id uuid references connections (id) on delete cascade;
create index sync_logs_connection on sync_logs (connection_id, id desc) where connection_id is not null;

-- What every table of a stream has, so that one write path serves them all.
alter table issues
    add column scope text,
    add column read_at timestamptz, -- when its reading began: of two readings of one version the later one is right
    add column absence text check (absence in ('deleted', 'deleted_or_hidden', 'moved'));
create index issues_scope on issues (import_source, scope) where scope is not null;
alter table projects
    add column key text,
    add column scope text,
    add column read_at timestamptz,
    add column absence text check (absence in ('deleted', 'deleted_or_hidden', 'moved'));

create table comments (
    import_source text not null,
    external_id text not null,
    issue_id text,
    issue_key text,
    author text,
    body text not null,
    internal boolean not null default false,
    url text,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);
create index comments_issue_id on comments (import_source, issue_id);
create index comments_issue_key on comments (import_source, issue_key) where issue_key is not null;

create table worklogs (
    import_source text not null,
    external_id text not null,
    issue_id text,
    issue_key text,
    author text,
    started_at timestamptz,
    seconds bigint not null,
    comment text,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);
create index worklogs_issue_id on worklogs (import_source, issue_id);

create table issue_history (
    import_source text not null,
    external_id text not null,
    issue_id text,
    issue_key text,
    author text,
    changed_at timestamptz not null,
    changes jsonb not null,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);
create index issue_history_issue_id on issue_history (import_source, issue_id);

create table sprints (
    import_source text not null,
    external_id text not null,
    name text not null,
    state text,
    board text,
    goal text,
    starts_at timestamptz,
    ends_at timestamptz,
    completed_at timestamptz,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);

create table issue_sprints (
    import_source text not null,
    issue_id text not null,
    sprint_id text not null,
    primary key (import_source, issue_id, sprint_id)
);
create index issue_sprints_sprint on issue_sprints (import_source, sprint_id);

create table people (
    import_source text not null,
    external_id text not null,
    name text,
    login text,
    email text,
    active boolean,
    time_zone text,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);

create table pull_requests (
    import_source text not null,
    external_id text not null,
    key text,
    project text,
    title text not null,
    description text,
    state text not null,
    draft boolean not null default false,
    author text,
    labels jsonb not null default '[]',
    source_branch text,
    target_branch text,
    url text,
    merged_at timestamptz,
    closed_at timestamptz,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);
create index pull_requests_project on pull_requests (import_source, project, source_updated_at desc);

create table commits (
    import_source text not null,
    external_id text not null,
    project text,
    sha text not null,
    message text not null,
    author text,
    author_email text,
    url text,
    committed_at timestamptz,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);
create index commits_project on commits (import_source, project, committed_at desc);

create table releases (
    import_source text not null,
    external_id text not null,
    project text,
    tag text not null,
    name text,
    description text,
    author text,
    draft boolean not null default false,
    prerelease boolean not null default false,
    url text,
    published_at timestamptz,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);

create table branches (
    import_source text not null,
    external_id text not null,
    project text,
    name text not null,
    sha text,
    protected boolean not null default false,
    "default" boolean not null default false,
    scope text,
    source_created_at timestamptz,
    source_updated_at timestamptz,
    payload jsonb not null,
    content_hash bytea not null,
    read_at timestamptz,
    job_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    absence text,
    primary key (import_source, external_id)
);

-- The proof: the closed windows of each (connection, stream, scope), joined, and every hole between them.
create view sync_gaps as
with lines as (
    select connection_id, stream, scope, range_agg(tstzrange(lo, hi)) as covered
      from sync_windows
     where state = 'closed' and lo < hi
     group by connection_id, stream, scope
)
select lines.connection_id, connections.slug, stream, scope, lower(hole) as gap_from, upper(hole) as gap_to
  from lines
  join connections on connections.id = lines.connection_id
 cross join lateral unnest(tstzmultirange(tstzrange('-infinity', upper(covered))) - covered) as hole;

-- Bugs, incidents and errors, in the shape quality teams ask for.
create view defects as
select import_source, external_id, key, title, description, type, status, status_category, severity, priority, assignee,
       reporter, project, environment, stack_trace, url, source_created_at, source_updated_at, resolved_at
  from issues
 where deleted_at is null
   and (stack_trace is not null or lower(coalesce(type, '')) in ('bug', 'defect', 'error', 'incident', 'fault', 'default'));

-- Issues of Jira connections, in the shape of a ticket list.
create view jira_tickets as
select issues.import_source, issues.external_id, key, title as summary, description, type as issue_type, status,
       status_category, priority, assignee, reporter, labels, components, project, parent, sprint, story_points, due_on,
       resolution, source_created_at as created_at, source_updated_at as updated_at, resolved_at, url
  from issues
  join connections on connections.slug = issues.import_source and connections.source = 'jira'
 where issues.deleted_at is null;
