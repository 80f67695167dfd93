# Ceph's object gateway over one monitor and one storage daemon in memory: a second production S3, listed in byte order, with
# notifications of its own (an SNS topic with the attribute `push-endpoint`; events name version ids and delete markers).

for program in radosgw radosgw-admin ceph ceph-mon ceph-osd ceph-authtool monmaptool; do
  command -v "$program" >/dev/null || missing "$program" "run ./dev setup --ceph"
done

start() {
  read -r mon s3 < <(free_ports 2)
  local cluster osd classes
  cluster=$(cat /proc/sys/kernel/random/uuid)
  osd=$(cat /proc/sys/kernel/random/uuid)
  # Debian's Ceph 18 looks for them relative to the working directory.
  classes=$(find /usr/lib -maxdepth 2 -type d -name rados-classes -print -quit)
  rm -rf "$directory/ceph"
  mkdir -p "$directory"/ceph/{mon,osd,rgw,run}
  cd "$directory/ceph" || exit
  export CEPH_CONF=$PWD/ceph.conf
  configuration >ceph.conf
  {
    ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
    for name in client.admin client.rgw osd.0; do
      ceph-authtool keyring --gen-key -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    done
    monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$mon]" monmap
    ceph-mon -i a --mkfs --monmap monmap --keyring keyring
  } >>"$log" 2>&1
  serve ceph-mon -i a -f
  {
    timeout 30 ceph osd new "$osd" 0
    ceph-osd -i 0 --mkfs --osd-uuid "$osd"
  } >>"$log" 2>&1
  serve ceph-osd -i 0 -f
  timeout 30 radosgw-admin -n client.rgw user create --uid=hindsight --display-name=hindsight \
    --access-key="$access_key" --secret-key="$secret_key" >>"$log" 2>&1
  serve radosgw -n client.rgw -f
}

configuration() {
  # Without cephx the gateway hangs. Without the two paxos lines each of its pools takes a second to make. Without the cluster
  # address heartbeats would listen on every interface.
  cat <<END
[global]
fsid = $cluster
mon host = [v2:127.0.0.1:$mon]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv4 = true
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $PWD/keyring
run dir = $PWD/run
admin socket =
log to stderr = true
log file =
paxos propose interval = 0.02
paxos min wait = 0.01
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[mon.a]
mon data = $PWD/mon
[osd]
osd data = $PWD/osd
osd class dir = $classes
osd objectstore = memstore
memstore device bytes = 4294967296
[client.rgw]
rgw data = $PWD/rgw
rgw frontends = beast endpoint=127.0.0.1:$s3
rgw thread pool size = 32
rgw crypt require ssl = false
rgw dynamic resharding = false
rgw override bucket index max shards = 1
rgw run sync thread = false
END
}

ready() { answers "$s3" / 200; }

describe() {
  echo "AWS_ENDPOINT_URL=http://127.0.0.1:$s3"
  echo "AWS_ACCESS_KEY_ID=$access_key"
  echo "AWS_SECRET_ACCESS_KEY=$secret_key"
  echo "AWS_REGION=us-east-1"
  # The command line of AWS reads this one only.
  echo "AWS_DEFAULT_REGION=us-east-1"
}
