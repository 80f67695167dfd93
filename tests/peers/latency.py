"""How long it takes from a put until a restore can bring it back, at a steady rate of puts.

    latency.py HINDSIGHT [--rate PER_SECOND] [--seconds N]

One `hindsight serve` on an emulated AWS: S3 sends events through EventBridge into a queue, and the vault is a local directory.
A put counts as restorable when `latest`, as the process shows it, has passed the moment at which the put was answered. Needs
botocore: run it with the Python of the test tools.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import botocore.config
import botocore.session

from server import Server
from serving import POLL_SECONDS, Serve

PUTTERS = 8
OBJECT_BYTES = 1024
SETTLE_SECONDS = 60


class Account:
    """A bucket whose events go to a queue."""

    def __init__(self, endpoint, name):
        session = botocore.session.get_session()
        config = botocore.config.Config(max_pool_connections=PUTTERS, retries={"max_attempts": 1})
        client = lambda service: session.create_client(service, region_name=os.environ["AWS_REGION"], endpoint_url=endpoint, config=config)
        self.s3, self.bucket = client("s3"), name
        self.s3.create_bucket(Bucket=name)
        self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        self.s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}})
        sqs, events = client("sqs"), client("events")
        self.queue = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        pattern = json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": [name]}}})
        events.put_rule(Name=name, EventPattern=pattern)
        events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
        # The emulator may name itself as others see it; it is reached where it listens.
        self.queue = endpoint + "/" + self.queue.split("/", 3)[3]


def put_steadily(account, rate, seconds, answered):
    """Puts at fixed moments, however long each takes; notes when each was answered."""
    began, body = time.time() + 0.5, os.urandom(OBJECT_BYTES)
    lock = threading.Lock()

    def put(index):
        time.sleep(max(0.0, began + index / rate - time.time()))
        account.s3.put_object(Bucket=account.bucket, Key=f"photos/{index % 5000:05}.jpg", Body=body)
        with lock:
            answered.append(time.time())

    with ThreadPoolExecutor(PUTTERS) as pool:
        list(pool.map(put, range(rate * seconds)))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("hindsight")
    options.add_argument("--rate", type=int, default=100)
    options.add_argument("--seconds", type=int, default=60)
    options = options.parse_args()
    hindsight = str(Path(options.hindsight).resolve())
    with tempfile.TemporaryDirectory() as folder, Server("aws") as server:
        folder = Path(folder)
        os.environ.update(server.facts)
        environment = {**os.environ, "HOME": str(folder)}
        account = Account(server.endpoint, "photos")
        vault = str(folder / "vault")
        command = [hindsight, "protect", "s3://photos", "--vault", vault, "--events", f"sqs:{account.queue}", "--no-acls"]
        subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        serve = Serve(hindsight, vault, folder, environment)
        while time.time() - serve.latest() > 5:
            time.sleep(POLL_SECONDS)
        answered, waits, unseen = [], [], 0
        putting = threading.Thread(target=put_steadily, args=(account, options.rate, options.seconds, answered))
        putting.start()
        deadline = time.time() + options.seconds + SETTLE_SECONDS
        while putting.is_alive() or unseen < len(answered):
            if time.time() > deadline:
                raise SystemExit(f"after {SETTLE_SECONDS} s {len(answered) - unseen} puts are not restorable")
            latest = serve.latest()
            now = time.time()
            times = sorted(answered)
            while unseen < len(times) and times[unseen] <= latest:
                waits.append(now - times[unseen])
                unseen += 1
            time.sleep(POLL_SECONDS)
        putting.join()
        cpu, peak = serve.end()
    waits.sort()
    rate = len(waits) / (max(answered) - min(answered))
    at = lambda share: waits[min(len(waits) - 1, int(share * len(waits)))]
    print(f"put to restorable at {rate:.0f} puts/s: p50 {at(0.5):.2f} s, p99 {at(0.99):.2f} s, most {waits[-1]:.2f} s, of {len(waits)} puts")
    print(f"serve: {cpu / len(waits) * 1e6:.0f} us CPU a put, peak {peak:.0f} MiB, mean wait {statistics.mean(waits):.2f} s")


if __name__ == "__main__":
    main()
