-- After a crash or a failover of the server an unlogged table is empty, and then everything would seem to be absent.
alter table seen_ids set logged;

alter table jobs
    -- The last attempt that compared what a sync saw with what is stored; a run of it again must change nothing.
    add column compared_attempt integer;

alter table coverage_gaps
    -- Told by a comparison, which alone can take it back: that a list can be read again proves nothing.
    add column absences boolean not null default false;
