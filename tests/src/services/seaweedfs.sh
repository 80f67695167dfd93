# SeaweedFS: an S3 server that enforces versions, Object Lock, conditional writes, checksums and signatures.

weed=$tools/s3/bin/weed
[[ -x $weed ]] || missing "$weed" "run ./dev setup"

start() {
  # Every port is named: those that are not would be the others plus 10000.
  read -r master master_grpc volume volume_grpc filer filer_grpc s3 s3_grpc < <(free_ports 8)
  cat >"$directory/s3.json" <<END
{"identities": [{
  "name": "hindsight",
  "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}
END
  mkdir -p "$directory/data"
  # Each S3 bucket takes volumes of its own: with the default limits the eleventh bucket would get "internal error".
  # The key makes SSE-S3 work. A master without peers needs no election, which the volume server would sometimes lose 5 s over.
  serve env TMPDIR="$directory" WEED_S3_SSE_KEY=hindsight WEED_MASTER_VOLUME_GROWTH_COPY_1=1 \
    "$weed" -logtostderr=true server -dir="$directory/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.port="$master" -master.port.grpc="$master_grpc" -master.peers=none -master.telemetry=false \
    -master.volumeSizeLimitMB=64 \
    -volume.port="$volume" -volume.port.grpc="$volume_grpc" -volume.max=5000 \
    -filer -filer.port="$filer" -filer.port.grpc="$filer_grpc" -filer.localSocket="$directory/filer.sock" \
    -s3 -s3.port="$s3" -s3.port.grpc="$s3_grpc" -s3.localSocket="$directory/s3.sock" -s3.config="$directory/s3.json" \
    -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0
}

# The S3 port may answer before there is a volume to write to. Unsigned, it answers 403.
ready() { answers "$s3" / 403 && answers "$master" /dir/assign 200; }

describe() {
  echo "AWS_ENDPOINT_URL=http://127.0.0.1:$s3"
  echo "AWS_ACCESS_KEY_ID=$access_key"
  echo "AWS_SECRET_ACCESS_KEY=$secret_key"
  echo "AWS_REGION=us-east-1"
  # The command line of AWS reads this one only.
  echo "AWS_DEFAULT_REGION=us-east-1"
}

# Its sockets for gRPC lie in /tmp, whatever TMPDIR says, and stay there when it is killed.
sweep() {
  rm -f "/tmp/seaweedfs-master-grpc-${master_grpc-}.sock" "/tmp/seaweedfs-volume-grpc-${volume_grpc-}.sock" \
    "/tmp/seaweedfs-filer-grpc-${filer_grpc-}.sock" "/tmp/seaweedfs-s3-grpc-${s3_grpc-}.sock"
}
