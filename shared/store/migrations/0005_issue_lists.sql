-- Lists of issues are sorted as these indexes are, so that a page costs its rows and not the table.
-- The indexes they replace were sorted in another way than the lists, and so were of no use to them.
drop index issues_updated;
create index issues_listed
    on issues (coalesce(source_updated_at, '-infinity') desc, import_source desc, external_id desc);
drop index issues_status;
create index issues_listed_by_source
    on issues (import_source, coalesce(source_updated_at, '-infinity') desc, external_id desc);
