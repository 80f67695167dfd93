//! What strace wrote down of a process, read back: the calls that change files, in the order in which they came to an end,
//! and what was sent to others.
//!
//! ```text
//!  17 openat(AT_FDCWD<\x2f...>, "\x61", O_WRONLY|O_CREAT|O_EXCL, 0666) = 9<\x2f...>
//!  18 fsync(9<\x2f...> <unfinished ...>                      begun: what ends after this line is not covered by it
//!  18 <... fsync resumed>)    = 0                            ended
//! ```

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The calls that are traced: all that change what is on a disk, and all that send.
pub const CALLS: &str = "open,openat,openat2,creat,mkdir,mkdirat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,\
                         fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,\
                         copy_file_range,sendfile,splice,sendto,sendmsg,sendmmsg";

/// Something that a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "paths are paths, and the calls have their names")]
pub enum Call {
    /// Opened a file in a way that makes it, or empties it.
    Open {
        path: PathBuf,
        create: bool,
        truncate: bool,
    },
    /// Made a folder.
    MakeFolder {
        path: PathBuf,
    },
    /// Wrote at the end of what it had written, or of the file.
    Write {
        path: PathBuf,
        bytes: Vec<u8>,
    },
    /// Began to sync a file or folder; `ended` says when that was done.
    SyncBegins {
        path: PathBuf,
        ticket: usize,
    },
    /// A sync was done.
    SyncEnds {
        ticket: usize,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Began to send something.
    Send {
        bytes: Vec<u8>,
    },
}

/// Reads what strace wrote with `-f -y -xx` of a process that worked in a folder. Panics at what it does not understand: a call that was missed would make the
/// test see a disk that never was.
pub fn read(text: &str, folder: &Path) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut begun: HashMap<&str, (String, Option<usize>)> = HashMap::new();
    for line in text.lines() {
        let (process, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            let ticket = begin(head, &mut calls);
            begun.insert(process, (head.to_owned(), ticket));
        } else if rest.starts_with("<... ") {
            let (_, tail) = rest.split_once(" resumed>").unwrap_or_else(|| panic!("what is resumed: {line}"));
            let Some((head, ticket)) = begun.remove(process) else { continue };
            end(&format!("{head}{tail}"), ticket, folder, &mut calls);
        } else {
            let head = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {line}")).0.trim_end();
            let ticket = begin(head, &mut calls);
            end(rest, ticket, folder, &mut calls);
        }
    }
    calls
}

/// What matters when a call begins. Returns what tells a sync's end.
fn begin(head: &str, calls: &mut Vec<Call>) -> Option<usize> {
    let (name, arguments) = head.split_once('(')?;
    // A descriptor's path may hold a comma, but as hexadecimal digits.
    let path = descriptor(arguments.split(',').next().unwrap_or_default().trim_end_matches(')'));
    match name {
        "fsync" | "fdatasync" => {
            let ticket = calls.len();
            calls.push(Call::SyncBegins { path: path?, ticket });
            Some(ticket)
        }
        "write" | "writev" | "sendto" | "sendmsg" | "sendmmsg" if path.is_none() => {
            calls.push(Call::Send { bytes: strings(arguments).concat() });
            None
        }
        _ => None,
    }
}

/// What matters when a call has ended.
fn end(text: &str, ticket: Option<usize>, folder: &Path, calls: &mut Vec<Call>) {
    let (head, result) = text.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {text}"));
    let result = result.trim();
    if result.starts_with('-') || result.starts_with('?') {
        return;
    }
    let head = head.trim_end();
    let (name, arguments) = head.split_once('(').unwrap_or_else(|| panic!("no call: {text}"));
    let arguments = arguments_of(arguments.strip_suffix(')').unwrap_or_else(|| panic!("cut off: {text}")));
    let at = |within: usize, path: usize| place(&descriptor(&arguments[within]).unwrap_or_else(|| folder.to_owned()), &arguments[path]);
    let plain = |path: usize| place(folder, &arguments[path]);
    calls.push(match name {
        "open" | "creat" | "openat" | "openat2" => {
            let (path, flags) = if name.starts_with("openat") { (at(0, 1), &arguments[2]) } else { (plain(0), &arguments[1]) };
            let create = flags.contains("O_CREAT") || name == "creat";
            let truncate = flags.contains("O_TRUNC") || name == "creat";
            assert!(!flags.contains("O_TMPFILE"), "a file without a name: {text}");
            if !create && !truncate {
                return;
            }
            Call::Open { path, create, truncate }
        }
        "mkdir" => Call::MakeFolder { path: plain(0) },
        "mkdirat" => Call::MakeFolder { path: at(0, 1) },
        "write" | "writev" => {
            let Some(path) = descriptor(&arguments[0]) else { return };
            assert!(!head.contains("\"..."), "it was not written down whole: {path:?}");
            let mut bytes = strings(&head[head.find(',').unwrap_or(0)..]).concat();
            bytes.truncate(result.parse().unwrap_or_else(|_| panic!("no length: {text}")));
            Call::Write { path, bytes }
        }
        "link" => Call::Link { from: plain(0), to: plain(1) },
        "linkat" => Call::Link { from: at(0, 1), to: at(2, 3) },
        "rename" => Call::Rename { from: plain(0), to: plain(1) },
        "renameat" | "renameat2" => Call::Rename { from: at(0, 1), to: at(2, 3) },
        "unlink" | "rmdir" => Call::Remove { path: plain(0) },
        "unlinkat" => Call::Remove { path: at(0, 1) },
        "fsync" | "fdatasync" => match ticket {
            Some(ticket) => Call::SyncEnds { ticket },
            None => return,
        },
        "sendto" | "sendmsg" | "sendmmsg" => return,
        _ => panic!("the model of a disk does not know {text}"),
    });
}

/// The path that `9<\x2f\x61>` says, where it is one of a file.
fn descriptor(argument: &str) -> Option<PathBuf> {
    let (_, path) = argument.split_once('<')?;
    let path = path.strip_suffix('>')?;
    if !path.starts_with("\\x2f") {
        return None;
    }
    Some(PathBuf::from(String::from_utf8(unescaped(path)).unwrap_or_else(|error| panic!("{path}: {error}"))))
}

/// A path argument, made absolute.
fn place(folder: &Path, argument: &str) -> PathBuf {
    let text = argument.trim().trim_matches('"');
    let path = PathBuf::from(String::from_utf8(unescaped(text)).unwrap_or_else(|error| panic!("{text}: {error}")));
    folder.join(path).components().filter(|component| *component != Component::CurDir).collect()
}

/// The arguments of a call: what stands between commas that stand in nothing.
fn arguments_of(text: &str) -> Vec<String> {
    let (mut found, mut depth, mut quoted, mut from) = (Vec::new(), 0, false, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'[' | b'{' | b'(' if !quoted => depth += 1,
            b']' | b'}' | b')' if !quoted => depth -= 1,
            b',' if !quoted && depth == 0 => {
                found.push(text[from..at].trim().to_owned());
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[from..].trim().to_owned());
    found
}

/// What stands in quotes.
fn strings(text: &str) -> Vec<Vec<u8>> {
    text.split('"').skip(1).step_by(2).map(unescaped).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\\' | b'x')).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_else(|| panic!("not all of it is hexadecimal: {text:.200}")) as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn a_trace_is_read_in_the_order_in_which_calls_end() {
    let text = "\
7 openat(AT_FDCWD<\\x2f\\x77>, \"\\x61\\x23\\x31\", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 9<\\x2f\\x77\\x2f\\x61\\x23\\x31>
7 write(9<\\x2f\\x77\\x2f\\x61\\x23\\x31>, \"\\x68\\x69\", 2) = 2
7 fsync(9<\\x2f\\x77\\x2f\\x61\\x23\\x31> <unfinished ...>
8 mkdir(\"\\x2f\\x77\\x2f\\x62\", 0777) = -1 EEXIST (File exists)
8 mkdir(\"\\x2e\\x2f\\x63\", 0777) = 0
8 sendto(5<socket:[1]>, \"\\x6f\\x6b\", 2, MSG_NOSIGNAL, NULL, 0) = 2
7 <... fsync resumed>)              = 0
7 linkat(4<\\x2f\\x77>, \"\\x61\\x23\\x31\", AT_FDCWD<\\x2f\\x77>, \"\\x2e\\x2f\\x61\", 0) = 0
7 --- SIGTERM {si_signo=SIGTERM} ---
7 +++ exited with 0 +++
";
    let path = PathBuf::from("/w/a#1");
    let expected = [
        Call::Open { path: path.clone(), create: true, truncate: false },
        Call::Write { path: path.clone(), bytes: b"hi".to_vec() },
        Call::SyncBegins { path: path.clone(), ticket: 2 },
        Call::MakeFolder { path: PathBuf::from("/w/c") },
        Call::Send { bytes: b"ok".to_vec() },
        Call::SyncEnds { ticket: 2 },
        Call::Link { from: path, to: PathBuf::from("/w/a") },
    ];
    assert_eq!(read(text, Path::new("/w")), expected);
}
