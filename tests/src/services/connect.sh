# Kafka Connect with Debezium's connector for PostgreSQL: KAFKA_BROKERS says for which brokers, and CONNECT_OFFSETS where it keeps how far
# its connectors have come.

installed=$tools/connect/libs
[[ -d $installed ]] || missing "$installed" "run ./dev setup"
command -v java >/dev/null || missing java "run ./dev setup"

start() {
  read -r port < <(free_ports 1)
  cat >"$directory/worker.properties" <<END
bootstrap.servers=$KAFKA_BROKERS
listeners=HTTP://127.0.0.1:$port
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=${CONNECT_SCHEMAS:-false}
value.converter.schemas.enable=${CONNECT_SCHEMAS:-false}
offset.storage.file.filename=$CONNECT_OFFSETS
offset.flush.interval.ms=500
plugin.discovery=service_load
END
  serve java -Xms64m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$installed/*" \
    org.apache.kafka.connect.cli.ConnectStandalone "$directory/worker.properties"
}

ready() { answers "$port" /connectors 200; }

describe() {
  echo "CONNECT_URL=http://127.0.0.1:$port"
}
