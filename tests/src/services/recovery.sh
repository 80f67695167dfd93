# PostgreSQL's own recovery: from a copy of a base backup (POSTGRES_DATA) and the log that its cluster archived, up to where
# POSTGRES_RECOVER says (`recovery_target_time=...`). What had not ended there is rolled back, and it goes on as a cluster of its
# own: one that only stood there would keep the locks of those transactions, and nobody could read a table that was being emptied.

# shellcheck source=/dev/null
source "$here/postgres.sh"
# Recovering takes as long as there is log.
# shellcheck disable=SC2034 # run.sh reads it
start_seconds_max=600

start() {
  read -r port < <(free_ports 1)
  rm -rf "$directory/data"
  cp -a "$POSTGRES_DATA" "$directory/data"
  touch "$directory/data/recovery.signal"
  own "$directory/data"
  cd "$directory/data" || exit
  serve "${as[@]}" "$programs/postgres" -D "$directory/data" "${settings[@]}" -c port="$port" -c archive_mode=off \
    -c "restore_command=cp '$POSTGRES_ARCHIVE/%f' '%p'" -c "$POSTGRES_RECOVER" -c recovery_target_action=promote
}

ready() {
  local state
  state=$("${installed[0]}/pginstall/bin/psql" -X -A -t -q -h 127.0.0.1 -p "$port" -U $user -d postgres \
    -c 'SELECT pg_is_in_recovery()' 2>/dev/null) && [[ $state == f ]]
}
