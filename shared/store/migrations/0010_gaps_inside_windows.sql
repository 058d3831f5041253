alter table coverage_gaps
    -- Met inside a window that closed all the same: later windows do not come back to what it lacks, so only a reading
    -- from the beginning can take it back.
    add column inside boolean not null default false;
