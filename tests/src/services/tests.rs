//! Each server starts, answers on loopback only, and leaves nothing behind.

use super::*;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

#[test]
fn seaweedfs_comes_and_goes() {
    check(SeaweedFs::start().expect("SeaweedFS starts").0, "403");
}

#[test]
fn the_aws_emulator_comes_and_goes() {
    check(AwsEmulator::start().expect("the emulator starts").0, "200");
}

#[test]
fn ceph_comes_and_goes() {
    match CephRgw::start() {
        Ok(ceph) => check(ceph.0, "200"),
        Err(ServiceError::Missing { reason, .. }) => eprintln!("skipped: {reason}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn postgresql_comes_and_goes() {
    let postgres = Postgres::start().expect("PostgreSQL starts");
    let said = std::process::Command::new(postgres.programs().join("psql"))
        .args([&postgres.url("postgres"), "--no-psqlrc", "--tuples-only", "--no-align", "--command", "show wal_level"])
        .output()
        .expect("psql runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "logical", "{said:?}");
    let directory = PathBuf::from(&postgres.0.facts["SERVER_DIRECTORY"]);
    drop(postgres);
    assert!(!directory.exists(), "{} is left", directory.display());
}

#[test]
fn servers_do_not_meet() {
    let (one, two) = (AwsEmulator::start().expect("starts"), AwsEmulator::start().expect("starts"));
    assert_ne!(one.endpoint(), two.endpoint());
    assert_ne!(one.fresh_account(), two.fresh_account());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = Server::start("nothing").expect_err("there is no such server").to_string();
    assert!(error.contains("nothing.sh"), "{error}");
}

fn check(server: Server, status: &str) {
    assert_eq!(get(server.endpoint()), status);
    let processes: Vec<PathBuf> = server.facts["SERVER_PIDS"].split(',').map(|pid| Path::new("/proc").join(pid)).collect();
    let directory = PathBuf::from(&server.facts["SERVER_DIRECTORY"]);
    let listening: Vec<String> = processes.iter().flat_map(|process| listening(process)).collect();
    assert!(!listening.is_empty(), "no listening socket found");
    for address in &listening {
        assert!(address.starts_with("0100007F:"), "listens on {address}, which is not 127.0.0.1");
    }

    drop(server);
    assert!(!directory.exists(), "{} is left", directory.display());
    for process in processes {
        assert!(!process.exists(), "{} is left", process.display());
    }
    for address in listening {
        let port = u16::from_str_radix(&address[9..], 16).expect("a port in hexadecimal");
        for name in ["master", "volume", "filer", "s3"] {
            let socket = format!("/tmp/seaweedfs-{name}-grpc-{port}.sock");
            assert!(!Path::new(&socket).exists(), "{socket} is left");
        }
    }
}

fn get(endpoint: &str) -> String {
    let address = endpoint.strip_prefix("http://").expect("a plain address");
    let mut connection = TcpStream::connect(address).expect("a connection");
    write!(connection, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// The TCP addresses a process listens on, as the kernel writes them: `0100007F:1F90` is 127.0.0.1:8080.
fn listening(process: &Path) -> Vec<String> {
    const LISTEN: &str = "0A";
    let sockets: Vec<String> = fs::read_dir(process.join("fd"))
        .expect("a process of ours")
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut addresses = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        for line in fs::read_to_string(process.join(table)).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..] else {
                continue;
            };
            if sockets.iter().any(|socket| socket == inode) {
                addresses.push(local.to_owned());
            }
        }
    }
    addresses
}
