-- A child of an issue that is gone is gone too, and some sources name the issue by its key only. Few issues are gone.
create index issues_gone on issues (import_source, key) where deleted_at is not null;

-- How late a source's lists were seen to show a change: what a window finds that changed before it began was not yet
-- shown to the window before.
alter table sync_windows
    add column asked_at timestamptz; -- the source's clock when the window was planned
alter table sync_states
    add column observed_lag_seconds double precision,
    add column observed_lag_at timestamptz;
