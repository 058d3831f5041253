-- What was odd about the rows of a batch that were stored all the same: kind of oddity → number of rows.

alter table job_batches add column remarks jsonb not null default '{}';
