//! The client against qemu-nbd and nbdkit: the same bytes, and the same stretches.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway::nbd::{Address, Client, Patience, Wanted};

/// Whether a program is here; says so where it is not.
fn is_here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed; ./dev setup installs it");
    }
    found
}

/// A server on a Unix socket, ended with its value.
struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    fn start(mut command: Command, socket: &Path) -> Server {
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        let server = Server { process, socket: socket.to_owned() };
        for _ in 0..400 {
            if socket.exists() {
                return server;
            }
            std::thread::park_timeout(Duration::from_millis(25));
        }
        panic!("{command:?} did not begin to listen");
    }

    async fn client(&self, export: &str, contexts: &[&str]) -> Client {
        let wanted = Wanted { export: export.to_owned(), contexts: contexts.iter().map(|&context| context.to_owned()).collect() };
        Client::connect(&Address::Unix(self.socket.clone()), &wanted, Patience::default()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn whole(client: &mut Client, piece: u64, at_once: usize) -> Vec<u8> {
    let size = client.size();
    let mut content = vec![0; size as usize];
    let ranges: Vec<_> = (0..size).step_by(piece as usize).map(|from| from..(from + piece).min(size)).collect();
    let mut reads = client.reads(ranges, at_once);
    while let Some(read) = reads.next().await.unwrap() {
        content[read.offset as usize..][..read.content.len()].copy_from_slice(&read.content);
    }
    content
}

/// 8 MiB and 512 bytes, of which three stretches are written.
fn image(folder: &Path) -> (PathBuf, Vec<u8>) {
    let path = folder.join("disk.raw");
    let mut content = vec![0u8; (8 << 20) + 512];
    for (from, length, byte) in [(0usize, 100_000usize, 1u8), (3 << 20, 1 << 20, 2), (8 << 20, 512, 3)] {
        content[from..from + length].fill(byte);
    }
    std::fs::write(&path, &content).unwrap();
    (path, content)
}

#[tokio::test]
async fn what_qemu_serves_is_what_the_image_holds() {
    if !is_here("qemu-nbd") || !is_here("qemu-img") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, content) = image(folder.path());
    let (image, socket) = (folder.path().join("disk.qcow2"), folder.path().join("socket"));
    let (image, raw) = (image.to_str().unwrap(), raw.to_str().unwrap());
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw, image]);
    run("qemu-img", &["bitmap", "--add", image, "since"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 9 5M 70000", "-c", "write -z 3M 64k", image]);
    let mut command = Command::new("qemu-nbd");
    command.args(["-r", "-f", "qcow2", "-B", "since", "-x", "d0", "-t", "-k", socket.to_str().unwrap(), image]);
    let server = Server::start(command, &socket);
    let mut client = server.client("d0", &["base:allocation", "qemu:dirty-bitmap:since"]).await;
    let mut expected = content;
    expected[5 << 20..(5 << 20) + 70_000].fill(9);
    expected[3 << 20..(3 << 20) + (64 << 10)].fill(0);
    assert_eq!(client.size(), expected.len() as u64);
    for (piece, at_once) in [(64 << 10, 16), (1 << 20, 1), (100 * 512, 3)] {
        assert!(whole(&mut client, piece, at_once).await == expected, "in pieces of {piece}");
    }
    let dirty = client.extents("qemu:dirty-bitmap:since", 0..client.size()).await.unwrap();
    let dirty: Vec<_> = dirty.into_iter().filter(|extent| extent.flags & 1 != 0).map(|extent| extent.range).collect();
    assert_eq!(dirty, [3 << 20..(3 << 20) + (64 << 10), 5 << 20..(5 << 20) + (128 << 10)]);
    let zeros = client.extents("base:allocation", 0..client.size()).await.unwrap();
    for extent in zeros.iter().filter(|extent| extent.flags & 2 != 0) {
        let range = extent.range.start as usize..extent.range.end as usize;
        assert!(expected[range].iter().all(|byte| *byte == 0), "{extent:?}");
    }
    client.close().await.unwrap();
    let missing = Wanted { export: "d0".to_owned(), contexts: vec!["qemu:dirty-bitmap:other".to_owned()] };
    let error = Client::connect(&Address::Unix(socket.clone()), &missing, Patience::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the NBD server refuses context qemu:dirty-bitmap:other: it does not have it");
    let error = Client::connect(&Address::Unix(socket), &Wanted::default(), Patience::default()).await.unwrap_err();
    assert!(error.to_string().contains("there is no such export"), "{error}");
}

#[tokio::test]
async fn what_nbdkit_serves_is_what_the_file_holds() {
    if !is_here("nbdkit") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, content) = image(folder.path());
    // With structured replies, without them, and over TCP.
    for (name, filter) in [("plain", None), ("old", Some("--no-sr"))] {
        let socket = folder.path().join(name);
        let mut command = Command::new("nbdkit");
        command.args(filter).args(["-f", "-r", "-U", socket.to_str().unwrap(), "file", raw.to_str().unwrap()]);
        let server = Server::start(command, &socket);
        let contexts: &[&str] = if filter.is_none() { &["base:allocation"] } else { &[] };
        let mut client = server.client("", contexts).await;
        assert!(whole(&mut client, 256 << 10, 8).await == content, "{name}");
        client.close().await.unwrap();
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let pid = folder.path().join("pid");
    let mut command = Command::new("nbdkit");
    command.args(["-f", "-r", "-i", "127.0.0.1", "-p", &port, "-P", pid.to_str().unwrap(), "file", raw.to_str().unwrap()]);
    let _server = Server::start(command, &pid);
    let address = Address::Tcp(format!("127.0.0.1:{port}"));
    let mut client = Client::connect(&address, &Wanted::default(), Patience::default()).await.unwrap();
    assert!(whole(&mut client, 1 << 20, 4).await == content);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_that_says_so() {
    let error = Client::connect(&Address::Unix("/nowhere/at/all".into()), &Wanted::default(), Patience::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the NBD server cannot be reached");
}
