-- A child of an issue that is gone is gone too, and some sources name the issue by its key only. Few issues are gone.
create index issues_gone on issues (import_source, key) where deleted_at is not null;
