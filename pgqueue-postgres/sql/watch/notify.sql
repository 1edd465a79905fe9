
-- Rings for whoever waits for rows of this table. Made by pgqueue; all watched tables of the schema share it.
begin
  perform pg_catalog.pg_notify(tg_argv[0], '');
  return null;
end
