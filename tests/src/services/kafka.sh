# Apache Kafka: one broker that is its own controller, of three partitions a topic where nobody says otherwise.

installed=$tools/kafka/libs
[[ -d $installed ]] || missing "$installed" "run ./dev setup"
command -v java >/dev/null || missing java "run ./dev setup"

run_java() {
  exec java -Xms64m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$installed/*" "$@"
}

start() {
  local controller
  read -r port controller < <(free_ports 2)
  rm -rf "$directory/data"
  cat >"$directory/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dir=$directory/data
num.partitions=3
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=100
END
  (run_java kafka.tools.StorageTool format --standalone -t "$(cat /proc/sys/kernel/random/uuid)" -c "$directory/server.properties") >>"$log" 2>&1
  serve run_java kafka.Kafka "$directory/server.properties"
}

ready() { grep -q 'Kafka Server started' "$log"; }

describe() {
  echo "KAFKA_BROKERS=127.0.0.1:$port"
}
