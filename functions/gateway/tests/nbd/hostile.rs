//! The client against servers that do as they please. Real ones are in `real`.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use gateway::nbd::{Client, Extent, NbdError, Patience, Wanted};

/// What a server sends, and then it hangs up.
#[derive(Default, Clone)]
struct Script(Vec<u8>);

impl Script {
    fn u16(mut self, value: u16) -> Script {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Script {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Script {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Script {
        self.0.extend(bytes);
        self
    }

    fn greeting(self) -> Script {
        self.bytes(b"NBDMAGICIHAVEOPT").u16(3)
    }

    fn option(self, option: u32, kind: u32, data: &[u8]) -> Script {
        self.u64(0x0003_e889_0455_65a9).u32(option).u32(kind).u32(data.len() as u32).bytes(data)
    }

    /// An export of so many bytes, with a context that changed blocks are told in.
    fn export(size: u64) -> Script {
        let context = [&7u32.to_be_bytes()[..], b"c"].concat();
        let info = [&0u16.to_be_bytes()[..], &size.to_be_bytes(), &0u16.to_be_bytes()].concat();
        Script::default().greeting().option(8, 1, b"").option(10, 4, &context).option(10, 1, b"").option(7, 3, &info).option(7, 1, b"")
    }

    fn part(self, flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Script {
        self.u32(0x668e_33ef).u16(flags).u16(kind).u64(cookie).u32(data.len() as u32).bytes(data)
    }

    fn data(self, flags: u16, cookie: u64, offset: u64, content: &[u8]) -> Script {
        self.part(flags, 1, cookie, &[&offset.to_be_bytes()[..], content].concat())
    }

    fn status(self, flags: u16, cookie: u64, stretches: &[(u32, u32)]) -> Script {
        let mut data = 7u32.to_be_bytes().to_vec();
        stretches.iter().for_each(|(length, flags)| data.extend([length.to_be_bytes(), flags.to_be_bytes()].concat()));
        self.part(flags, 5, cookie, &data)
    }

    /// A server that sends this, and takes whatever it is sent.
    fn play(self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut from, mut to) = tokio::io::split(theirs);
        tokio::spawn(async move {
            // Nobody listens any more once the client has seen enough.
            let _ = to.write_all(&self.0).await;
            let _ = to.shutdown().await;
        });
        tokio::spawn(async move {
            let mut sink = Vec::new();
            let _ = from.read_to_end(&mut sink).await;
        });
        ours
    }
}

fn wanted() -> Wanted {
    Wanted { export: "d".to_owned(), contexts: vec!["c".to_owned()] }
}

fn patience() -> Patience {
    Patience { answer: Duration::from_secs(5) }
}

/// Shakes hands, asks for the status of all of it, and reads all of it in pieces of at most 100 bytes.
async fn everything(script: Script) -> Result<(Vec<Extent>, Vec<u8>), NbdError> {
    let mut client = Client::over(script.play(), &wanted(), patience()).await?;
    let size = client.size();
    let extents = client.extents("c", 0..size).await?;
    let mut content = vec![0; usize::try_from(size.min(1 << 20)).unwrap()];
    let mut came = vec![false; content.len()];
    let pieces = (0..content.len() as u64).step_by(100).map(|from| from..(from + 100).min(content.len() as u64)).collect::<Vec<_>>();
    let mut reads = client.reads(pieces, 4);
    while let Some(read) = reads.next().await? {
        content[read.offset as usize..][..read.content.len()].copy_from_slice(&read.content);
        came[read.offset as usize..][..read.content.len()].fill(true);
    }
    assert!(!came.contains(&false), "every byte that was asked for came");
    Ok((extents, content))
}

async fn refused(script: Script, words: &str) {
    let error = everything(script).await.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

/// A status of all clean, and the script goes on with request 2.
fn clean(size: u64) -> Script {
    Script::export(size).status(1, 1, &[(size as u32, 0)])
}

#[tokio::test]
async fn replies_may_come_in_any_order_and_in_parts() {
    let script = Script::export(250).status(0, 1, &[(50, 1), (50, 1), (10, 0)]).part(1, 0, 1, b"").status(1, 2, &[(500, 2)]);
    let holes = [&200u64.to_be_bytes()[..], &50u32.to_be_bytes()].concat();
    let script =
        script.data(0, 3, 60, &[2; 40]).part(1, 2, 5, &holes).data(1, 4, 100, &[3; 100]).data(0, 3, 0, &[1; 60]).part(1, 0, 3, b"");
    let (extents, content) = everything(script).await.unwrap();
    let flags: Vec<_> = extents.into_iter().map(|extent| (extent.range, extent.flags)).collect();
    assert_eq!(flags, [(0..100, 1), (100..110, 0), (110..250, 2)]);
    assert_eq!(content, [vec![1; 60], vec![2; 40], vec![3; 100], vec![0; 50]].concat());
}

#[tokio::test]
async fn what_was_not_asked_for_is_no_answer() {
    let size = 100;
    for (script, words) in [
        (clean(size).data(1, 9, 0, &[1; 100]), "answers what was not asked"),
        (clean(size).data(1, 2, 50, &[1; 100]), "where nothing was asked for"),
        (clean(size).data(1, 2, u64::MAX - 3, &[1; 10]), "where nothing was asked for"),
        (clean(size).data(0, 2, 0, &[1; 60]).data(1, 2, 50, &[1; 50]), "sends a byte twice"),
        (clean(size).data(1, 2, 0, &[1; 60]), "did not all come"),
        (clean(size).part(1, 0, 2, b""), "did not all come"),
        (clean(size).data(1, 2, 0, b""), "data of 8 bytes"),
        (clean(size).part(1, 1, 2, b"abc"), "data of 3 bytes"),
        (clean(size).status(1, 2, &[(100, 0)]), "answers a read with something else"),
        (clean(size).part(1, 77, 2, b""), "a reply of kind 77"),
        (clean(size).u32(0x6744_6698).u32(0).u64(2).bytes(&[0; 100]), "answers a read with something else"),
        (clean(size).u32(5), "a reply begins with 0x5"),
        (clean(size), "cannot be read from"),
        (Script::export(size).status(1, 1, &[]), "a status of 4 bytes"),
        (Script::export(size).status(1, 1, &[(0, 0)]), "a status of nothing"),
        (Script::export(size).status(1, 1, &[(100, 0), (1, 0)]), "behind what was asked"),
        (Script::export(size).status(0, 1, &[(10, 0)]).status(1, 1, &[(10, 0)]), "a status twice"),
        (Script::export(size).part(1, 0, 1, b""), "says nothing about the status"),
        (Script::export(size).status(1, 2, &[(100, 0)]), "answers what was not asked"),
        (Script::export(u64::MAX), "it says that the export has"),
        (Script::default().greeting().option(7, 1, b""), "something else than what was asked"),
        (Script::default().bytes(b"HTTP/1.1 400 Bad Request"), "does not greet"),
        (Script::default().bytes(b"NBDMAGIC").u64(0x0000_4202_8186_1253), "before 2011"),
        (Script::default().greeting().option(8, 1, b"").option(10, 1, b""), "refuses context c: it does not have it"),
    ] {
        refused(script, words).await;
    }
}

#[tokio::test]
async fn lengths_are_held_against_a_bound_before_room_is_made() {
    let head = |flags: u16, kind: u16, cookie: u64, length: u32| clean(100).u32(0x668e_33ef).u16(flags).u16(kind).u64(cookie).u32(length);
    refused(head(1, 1, 2, u32::MAX).u64(0), "where nothing was asked for").await;
    refused(head(1, 5, 2, u32::MAX - 3).u32(7), "a status of").await;
    refused(head(1, 0x8001, 2, u32::MAX), "an error of").await;
    let long = Script::default().greeting().u64(0x0003_e889_0455_65a9).u32(8).u32(3).u32(u32::MAX);
    refused(long, "a reply of 4294967295 bytes").await;
    let many = (0..300).fold(Script::default().greeting().option(8, 1, b""), |script, _| script.option(10, 4, b"xxxxc"));
    refused(many, "one twice").await;
    let info = [&9u16.to_be_bytes()[..], b"words"].concat();
    let chatter = Script::default().greeting().option(8, 1, b"").option(10, 4, &[0, 0, 0, 7, b'c']).option(10, 1, b"");
    let chatter = (0..300).fold(chatter, |script, _| script.option(7, 3, &info));
    refused(chatter, "more than 256 replies").await;
}

#[tokio::test]
async fn an_error_is_told_in_the_server_s_words() {
    let error = [&22u32.to_be_bytes()[..], &3u16.to_be_bytes(), b"why"].concat();
    refused(clean(100).part(1, 0x8001, 2, &error), "refuses 100 bytes at 0: invalid argument (why)").await;
    refused(Script::default().greeting().option(8, 1, b"").option(10, 0x8000_0006, b"no d"), "there is no such export (no d)").await;
    refused(Script::default().greeting().option(8, 0x8000_0005, b""), "it wants TLS").await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let (ours, theirs) = tokio::io::duplex(64);
    let patience = Patience { answer: Duration::from_secs(1) };
    let error = Client::over(ours, &wanted(), patience).await.unwrap_err();
    assert_eq!(error.to_string(), "the NBD server did not answer within 1 s");
    drop(theirs);
}

#[tokio::test]
async fn a_server_without_structured_replies_can_be_read_from() {
    let info = [&0u16.to_be_bytes()[..], &100u64.to_be_bytes(), &0u16.to_be_bytes()].concat();
    let script = Script::default().greeting().option(8, 0x8000_0001, b"").option(7, 3, &info).option(7, 1, b"");
    let script = script.u32(0x6744_6698).u32(0).u64(1).bytes(&[7; 100]);
    let plain = Wanted { contexts: Vec::new(), ..wanted() };
    let mut client = Client::over(script.play(), &plain, patience()).await.unwrap();
    assert_eq!(client.read(0..100).await.unwrap().to_vec(), vec![7; 100]);
    // And one from before there was `GO`.
    let script = Script::default().greeting().option(8, 0x8000_0001, b"").option(7, 0x8000_0001, b"").u64(100).u16(0);
    let script = script.u32(0x6744_6698).u32(5).u64(1);
    let mut client = Client::over(script.play(), &plain, patience()).await.unwrap();
    let error = client.read(0..100).await.unwrap_err();
    assert_eq!(error.to_string(), "the NBD server refuses 100 bytes at 0: input or output error");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_asked_for() {
    for range in [0..0, 90..110, 200..201] {
        let mut client = Client::over(Script::export(100).play(), &wanted(), patience()).await.unwrap();
        assert!(client.reads([range.clone()], 1).next().await.is_err(), "{range:?}");
    }
}

/// A server that does what a real one does, but for some bytes.
fn honest() -> Script {
    let script = Script::export(250).status(1, 1, &[(100, 1), (150, 0)]);
    script.data(0, 2, 0, &[1; 60]).data(1, 2, 60, &[1; 40]).data(1, 3, 100, &[2; 100]).data(1, 4, 200, &[3; 50])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever bytes come, it ends: with an error, or with something for every byte that was asked for.
    #[test]
    fn no_bytes_crash_the_client(
        cut in 0usize..500,
        flips in proptest::collection::vec((0usize..500, any::<u8>()), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut script = honest();
        let length = script.0.len();
        for (at, value) in flips {
            script.0[at % length] = value;
        }
        script.0.truncate(cut.max(16));
        script.0.extend(noise);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if let Ok((extents, content)) = runtime.block_on(everything(script)) {
            let mut end = 0;
            for extent in extents {
                prop_assert!(extent.range.start == end && extent.range.end > end);
                end = extent.range.end;
            }
prop_assert_eq!(content.len(), usize::try_from(end.min(1 << 20)).unwrap());
        }
    }
}
