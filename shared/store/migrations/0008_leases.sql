-- The access token got with a refresh token that is taken once, for all workers: sealed, and null after the credentials
-- were changed. Its successor takes the refresh token's place in credentials.
alter table connections add column lease jsonb;
