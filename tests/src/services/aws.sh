# ministack, an emulator of an AWS account: S3 whose events go to EventBridge, SQS, Lambda, CloudFormation and more.
#
# Its events carry no version id, it does not check signatures, and an access key of twelve digits is an account of its own.

ministack=$tools/aws/bin/ministack
[[ -x $ministack ]] || missing "$ministack" "run ./dev setup"

start() {
  read -r port < <(free_ports 1)
  # It would listen on every interface, and open ports for MQTT and SFTP besides.
  serve env TMPDIR="$directory" BIND_HOST=127.0.0.1 GATEWAY_PORT="$port" IOT_MTLS_ENABLED=0 SFTP_ENABLED=0 "$ministack"
}

ready() { answers "$port" /_ministack/health 200; }

describe() {
  echo "AWS_ENDPOINT_URL=http://127.0.0.1:$port"
  echo "AWS_ACCESS_KEY_ID=test"
  echo "AWS_SECRET_ACCESS_KEY=test"
  echo "AWS_REGION=us-east-1"
  # The command line of AWS reads this one only.
  echo "AWS_DEFAULT_REGION=us-east-1"
}
