//! What must hold of every input, whatever it is. Included by the fuzz targets and by the test that replays their corpora.
//!
//! Each says whether it took the input for what it should be. Where a digest would keep everything out that was not written by
//! us, it is made right first: what lies behind it is what is looked at.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use pipeline::base::Manifest;
use pipeline::base::file::{self, BucketFile, Holding, KeyRange, Part, SiftedFile};
use pipeline::base::inputs::Inventory;
use pipeline::changelog::{read, write};
use pipeline::fold::object::{self, ObjectJoin};
use pipeline::fold::sieve::{Sought, Wanted, sieve};
use pipeline::fold::tuple::{self, Moves, Resets, TupleJoin};
use pipeline::fold::{Cut, Fold, Join, Run};
use pipeline::model::change::{ChangeBatch, TupleRow};
use pipeline::model::{Digest, Key, Op, ResourceId, ResourceKind, Timestamp, json};
use pipeline::s3::aws::listing::{self, ListingError};
use pipeline::s3::{ListedVersion, NULL_VERSION, VersionPage};
use pipeline::source::debezium::value::{self, Kind};
use pipeline::source::pgoutput::{Begin, Decoder, Feed};
use pipeline::source::s3_event::{KEY_BYTES_MAX, TEXT_BYTES_MAX};
use pipeline::source::{control, debezium, s3_event};
use pipeline::target::directory::path;
use pipeline::vault::body::{Body, SLICE_BYTES};
use pipeline::vault::{FileRef, Vault, VaultError, layout, pack, record};

/// Batches that are looked at of one file: a row group may claim more rows than anybody has time for.
const BATCHES_MAX: usize = 100;

/// A message of a queue: each record in it is a change, a hint, ignored or a reject, within the bounds that are stated.
pub fn s3_event(message: &[u8]) -> bool {
    let feed = s3_event::Feed {
        stream: "fuzz".to_owned(),
        arrived: Timestamp::from_seconds(1_787_400_009),
        arrived_by: Arc::default(),
        emulated: false,
    };
    let decoded = s3_event::decode(feed.clone(), [message]);
    let mut counted = decoded.rejects.len() as u64 + decoded.ignored.values().sum::<u64>();
    for bucket in decoded.buckets.values() {
        counted += (bucket.changes.len() + bucket.hints.len()) as u64;
        for row in bucket.changes.object_columns().iter() {
            assert!((1..=KEY_BYTES_MAX).contains(&row.object.len()));
            assert!((1..=TEXT_BYTES_MAX).contains(&row.version.len()));
            assert!(row.at > Timestamp::default());
        }
        assert!(bucket.hints.iter().all(|hint| (1..=KEY_BYTES_MAX).contains(&hint.object.len())));
    }
    assert!(decoded.records > 0);
    assert_eq!(counted, decoded.records);
    for reject in &decoded.rejects {
        assert!(reject.reason.to_string().len() < 1_000);
    }

    // Two of the same are twice as many of everything.
    let twice = s3_event::decode(feed, [message, message]);
    assert_eq!(twice.records, 2 * decoded.records);
    assert_eq!(twice.rejects.len(), 2 * decoded.rejects.len());
    decoded.rejects.is_empty()
}

/// A Parquet file of changes: rows that can all be looked at, or an error that names the file.
pub fn segment(bytes: &[u8]) -> bool {
    match read::decode("log/hostile.parquet", Bytes::copy_from_slice(bytes)) {
        Ok(batches) => {
            for batch in batches {
                let changes = ChangeBatch::objects(batch).expect("what was decoded has the columns of changes");
                let rows: Vec<_> = changes.object_columns().iter().map(|row| row.to_change()).collect();
                assert_eq!(rows.len(), changes.len());
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("log/hostile.parquet"), "{error}");
            false
        }
    }
}

/// A bucket file whose digests are right, read in parts as a base is: rows that can be folded, or an error that names the file.
pub fn ranged(bytes: &[u8]) -> bool {
    let Some(Vouched { vault, file, kind }) = vouched(bytes) else { return false };
    let key = |object: &str| Some(Key::object_version(object, "").as_bytes().to_vec());
    let some = KeyRange { from: key("photos/00002"), until: key("photos/00030") };
    let whole = Holding { batch_rows: 4_096, bytes_max: u64::MAX };
    // It holds no row group, so that each batch begins to read anew.
    let little = Holding { batch_rows: 7, bytes_max: 0 };
    let mut taken = true;
    for (range, holding) in [(KeyRange::default(), whole), (KeyRange::default(), little), (some.clone(), little)] {
        for batch in at_once(file::stream(&vault, &file, &range, holding).take(BATCHES_MAX).collect::<Vec<_>>()) {
            match batch {
                Ok(rows) => look_at(&ChangeBatch::of(kind, rows).expect("what was read has the columns of changes")),
                Err(error) => taken &= is_named(&error, &file),
            }
        }
    }
    if kind == ResourceKind::Bucket {
        let cut = Cut::At(Timestamp::from_seconds(1_787_300_030));
        let join = || ObjectJoin::new(cut, object::Keep::Current);
        taken &=
            is_folded(Fold::new(vec![file::stream(&vault, &file, &KeyRange::default(), whole).take(BATCHES_MAX).boxed()], join()), &file);
        for (range, holding) in [(KeyRange::default(), whole), (some, little)] {
            for wanted in [Wanted::Rows, Wanted::Versions] {
                let sought = Sought { cut: Timestamp::from_seconds(1_787_300_030), newest: 1, wanted, only: None };
                let kept = sieve(vec![SiftedFile::new(&vault, &file, &range, holding)], sought);
                taken &= is_folded(Fold::of_whole_groups(kept, join()), &file);
            }
        }
    }
    taken
}

/// A file that a manifest vouches for.
struct Vouched {
    vault: Vault,
    file: BucketFile,
    kind: ResourceKind,
}

/// The same file with the digests of column chunks that it has, in a vault, and what a manifest says of it.
fn vouched(bytes: &[u8]) -> Option<Vouched> {
    const TRAILER_BYTES: usize = 8;
    let trailer = bytes.len().checked_sub(TRAILER_BYTES)?;
    let length = u32::from_le_bytes(bytes[trailer..trailer + 4].try_into().ok()?) as usize;
    let footer = trailer.saturating_sub(length);
    let mut bytes = bytes.to_vec();
    let (mut groups, mut kind) = (0, ResourceKind::Bucket);
    // What panics here panics in the reader as well, which is to say so.
    let read = catch_unwind(|| ParquetMetaDataReader::new().parse_and_finish(&Bytes::copy_from_slice(&bytes)));
    if let Ok(Ok(metadata)) = read {
        let columns = metadata.file_metadata().schema_descr();
        groups = metadata.num_row_groups();
        let has = |name: &str| columns.columns().iter().any(|column| column.name() == name);
        kind = match (has("image"), has("block")) {
            (true, _) => ResourceKind::Database,
            (_, true) => ResourceKind::Machine,
            _ => kind,
        };
        sign_chunks(&mut bytes, footer, &metadata);
    }
    let resource = match kind {
        ResourceKind::Bucket => ResourceId::bucket("photos"),
        ResourceKind::Database => ResourceId::database("shop"),
        ResourceKind::Machine => ResourceId::machine("web"),
    };
    let footer = Part { offset: footer as u64, length: (bytes.len() - footer) as u64, digest: Digest::of(&bytes[footer..]) };
    let path = layout::base_file(&resource.expect("a name"), &Digest::of(&bytes));
    let vault = Vault::new(Arc::new(InMemory::new()), "");
    let file = at_once(vault.create_named_by_content(&path, bytes.into())).expect("memory");
    let last_keys = vec!["ff".to_owned(); groups];
    Some(Vouched { vault, file: BucketFile { bucket: 0, rows: 0, file, last_keys, footer }, kind })
}

/// Writes over what the footer says are the digests of the column chunks.
fn sign_chunks(bytes: &mut [u8], footer: usize, metadata: &ParquetMetaData) {
    const DIGEST_DIGITS: usize = 64;
    let entries = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let Some(stated) = entries.filter(|entry| entry.key == "hindsight.chunks").find_map(|entry| entry.value.as_deref()) else { return };
    let place = |stated: &str| bytes[footer..].windows(stated.len().max(1)).position(|window| window == stated.as_bytes());
    let Some(at) = place(stated).map(|place| footer + place) else { return };
    let ranges: Vec<Option<Range<usize>>> = metadata.row_groups().iter().flat_map(chunk_ranges).collect();
    for (range, at) in ranges.into_iter().zip((at..at + stated.len()).step_by(DIGEST_DIGITS)) {
        if let Some(chunk) = range.and_then(|range| bytes.get(range))
            && at + DIGEST_DIGITS <= bytes.len()
        {
            let digest = Digest::of(chunk).to_string();
            bytes[at..at + DIGEST_DIGITS].copy_from_slice(digest.as_bytes());
        }
    }
}

/// Where the column chunks of a row group lie, as far as such a place can be.
fn chunk_ranges(group: &RowGroupMetaData) -> impl Iterator<Item = Option<Range<usize>>> {
    group.columns().iter().map(|chunk| {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(chunk.compressed_size()).ok()?);
        Some(start..start.checked_add(length)?)
    })
}

/// Every value of a batch.
fn look_at(changes: &ChangeBatch) {
    match changes.kind() {
        ResourceKind::Bucket => changes.object_columns().iter().for_each(|row| drop(row.to_change())),
        ResourceKind::Database => changes.tuple_columns().iter().for_each(|row| drop(row.to_change())),
        ResourceKind::Machine => changes.block_columns().iter().for_each(|row| drop(row.to_change())),
    }
}

/// Whether a fold of it gives rows, and no error.
fn is_folded<J: Join>(mut fold: Fold<'_, J, VaultError>, file: &BucketFile) -> bool {
    for _ in 0..BATCHES_MAX {
        match at_once(fold.next()) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(error) => return is_named(&error, file),
        }
    }
    true
}

/// It is damage, and says of which file.
fn is_named(error: &VaultError, file: &BucketFile) -> bool {
    assert!(error.to_string().contains(&file.file.path), "{error}");
    false
}

fn at_once<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("memory answers at once")
}

/// A reply to the question for versions: a page that a listing can rest on and go on from, or an error.
pub fn listing(document: &[u8]) -> bool {
    let Ok(page) = listing::parse(document, None, None) else { return false };
    let mut objects = BTreeSet::new();
    for of_object in page.versions.chunk_by(|a, b| a.object == b.object) {
        assert!(objects.insert(&of_object[0].object), "{:?} stands in two places", of_object[0].object);
        let current = of_object.iter().position(|version| version.latest && version.version == NULL_VERSION);
        assert!(current.is_none_or(|place| place == 0), "what a plain GET sees is not the newest: {of_object:?}");
    }
    for version in &page.versions {
        assert!(!version.version.is_empty());
        assert_eq!(version.size.is_none(), version.marker);
        assert!(version.size.is_none_or(|size| size >= 0));
        assert!(version.etag.as_deref() != Some("") && version.storage_class.as_deref() != Some(""));
    }
    // A page that leads to itself would be read for ever.
    if let Some(next) = &page.next {
        assert_eq!(listing::parse(document, Some(next), None), Err(ListingError::Next));
    }
    assert_eq!(listing::parse(written(&page).as_bytes(), None, None).as_ref(), Ok(&page));
    true
}

/// The page as a server writes it that encodes keys.
fn written(page: &VersionPage) -> String {
    let mut text = "<ListVersionsResult><EncodingType>url</EncodingType>".to_owned();
    for version in &page.versions {
        let ListedVersion { object, version, marker, latest, modified, size, etag, storage_class } = version;
        let name = if *marker { "DeleteMarker" } else { "Version" };
        text += &format!("<{name}><Key>{}</Key><VersionId>{}</VersionId>", percent(object), escaped(version));
        text += &format!("<IsLatest>{latest}</IsLatest><LastModified>{modified}</LastModified>");
        text += &size.map(|size| format!("<Size>{size}</Size>")).unwrap_or_default();
        text += &etag.as_deref().map(|etag| format!("<ETag>&quot;{}&quot;</ETag>", escaped(etag))).unwrap_or_default();
        text += &storage_class.as_deref().map(|class| format!("<StorageClass>{}</StorageClass>", escaped(class))).unwrap_or_default();
        text += &format!("</{name}>");
    }
    if let Some(next) = &page.next {
        text += &format!("<IsTruncated>true</IsTruncated><NextKeyMarker>{}</NextKeyMarker>", percent(&next.key));
        let version = next.version.as_deref().map(escaped);
        text += &version.map(|version| format!("<NextVersionIdMarker>{version}</NextVersionIdMarker>")).unwrap_or_default();
    }
    text + "</ListVersionsResult>"
}

fn percent(key: &str) -> String {
    key.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// As text of XML; a zero byte has no reference, and stands for itself.
fn escaped(text: &str) -> String {
    let each = |char: char| match char {
        '<' | '&' | '>' | '\u{1}'..='\u{1f}' => format!("&#{};", u32::from(char)),
        _ => char.to_string(),
    };
    text.chars().map(each).collect()
}

/// What PostgreSQL sends, each message behind its length in two bytes: told or kept whole, in order, with what it refers to; and
/// folded without a panic.
pub fn pgoutput(messages: &[u8]) -> bool {
    let mut decoder = Decoder::new(Feed { stream: "slot".to_owned(), epoch: 1 });
    decoder.set_key(8, vec!["id".to_owned()]);
    let mut rest = messages;
    let (mut kept, mut batches) = (Vec::new(), Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (message, behind) = behind.split_at(behind.len().min(usize::from(u16::from_be_bytes(*length))));
        rest = behind;
        // These three the client of the protocol takes apart.
        match message.split_first() {
            Some((b'B', fields)) => {
                // A batch is what lies between two beginnings.
                batches.push(told(&mut decoder, &mut kept));
                let commit = number(fields, 0);
                let at = Timestamp::from_micros(number(fields, 8) as i64);
                decoder.begin(Begin { commit, at, xid: number(fields, 16) as u32 });
            }
            Some((b'C', fields)) => {
                decoder.commit(number(fields, 9));
                assert!(!decoder.is_in_transaction());
                batches.push(told(&mut decoder, &mut kept));
            }
            Some((b'M', fields)) => {
                let (prefix, content) = fields.split_at(fields.len() / 2);
                decoder.message(number(fields, 0), Timestamp::default(), &String::from_utf8_lossy(prefix), content);
            }
            _ => {
                let (rows, raw) = (decoder.len(), decoder.raw());
                decoder.data(message);
                match decoder.raw() - raw {
                    0 => assert!(decoder.len() > rows || !matches!(message[0], b'I' | b'U' | b'D'), "nothing came of {message:?}"),
                    _ => kept.push(message.to_vec()),
                }
            }
        }
    }
    batches.push(told(&mut decoder, &mut kept));
    batches.into_iter().for_each(|batch| fold_tables(&batch));
    decoder.raw() == 0
}

/// Eight bytes of a message's fields as a number; what is missing is 0.
fn number(fields: &[u8], at: usize) -> u64 {
    let byte = |place: usize| fields.get(at + place).copied().unwrap_or_default();
    u64::from_be_bytes(std::array::from_fn(byte))
}

/// What was told since the last beginning or end. It has no other transaction's rows, so that their positions grow.
fn told(decoder: &mut Decoder, kept: &mut Vec<Vec<u8>>) -> ChangeBatch {
    let batch = decoder.finish();
    let (mut shapes, mut raw, mut last) = (BTreeSet::new(), Vec::new(), None);
    for row in batch.tuple_columns().iter() {
        for image in [row.image, row.before].into_iter().flatten() {
            assert!(json::entries(image).is_ok(), "{image}");
        }
        for texts in [row.unsent, row.identity].into_iter().flatten() {
            assert!(json::entries(&json::object([("texts", texts)])).is_ok(), "{texts}");
        }
        assert!(row.shape.is_none_or(|shape| shapes.contains(&json::array([shape]))), "nothing says what {:?} is", row.shape);
        raw.extend(row.raw.map(<[u8]>::to_vec));
        if row.schema.is_empty() && row.table == control::SHAPE {
            shapes.extend(row.identity.map(str::to_owned));
        } else if row.request.is_some() {
            assert!(last.is_none_or(|last| last < row.position), "the order of {row:?}");
            last = Some(row.position);
        }
    }
    assert_eq!(raw, std::mem::take(kept), "what cannot be decoded is kept whole");
    batch
}

/// The state of the tables of a batch.
fn fold_tables(batch: &ChangeBatch) {
    let columns = batch.tuple_columns();
    let resets_up_to = |position: &[u8]| {
        let mut resets = Resets::default();
        let is_reset = |row: &TupleRow<'_>| row.op == Op::Reset && row.position <= position;
        columns.iter().filter(is_reset).for_each(|row| resets.table(row.schema, row.table, row.position));
        resets
    };
    let mut moves = Moves::default();
    columns.iter().enumerate().for_each(|(index, row)| moves.look_at(columns.key.value(index), &row));
    columns.iter().enumerate().for_each(|(index, row)| moves.remember(columns.key.value(index), &row));
    let carried = Arc::new(moves.carried(resets_up_to));
    let run: Run<'static, Infallible> = futures::stream::iter([Ok(write::sort(batch).into_rows())]).boxed();
    let mut fold = Fold::new(vec![run], TupleJoin::new(None, tuple::Keep::State, resets_up_to(&[0xFF])).carrying(carried));
    let mut rows = 0;
    while let Ok(Some(folded)) = at_once(fold.next()) {
        rows += folded.rows.num_rows();
    }
    assert!(rows <= batch.len());
}

/// A record of a connector, its key before the first end of a line: told, ignored or kept whole, and never a panic; nor is there one where it is
/// proven and restored.
pub fn debezium(bytes: &[u8]) -> bool {
    let (key, value) = bytes.iter().position(|byte| *byte == b'\n').map_or((&b"null"[..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    let feed = debezium::Feed { server: "t".to_owned(), epoch: 1, placeholder: debezium::PLACEHOLDER.to_owned() };
    let mut decoder = debezium::Decoder::new(feed);
    let (at, stream) = (Timestamp::from_seconds(1_787_300_000), debezium::stream("t.transaction", 0));
    decoder.push(&debezium::Record {
        stream: &stream,
        partition: 0,
        offset: 3,
        at,
        key: Some(key),
        value: Some(value),
        old_key: Some(key),
    });
    let decoded = decoder.finish();
    let (told, ignored) = (decoded.changes.len() as u64, decoded.ignored.values().sum::<u64>());
    assert_eq!(decoded.records, 1);
    assert!(told + ignored >= 1 && decoded.raw <= told, "{told} told, {ignored} ignored, {} raw", decoded.raw);
    let mut proof = debezium::proof::Proof::default();
    for row in decoded.changes.tuple_columns().iter() {
        let _ = proof.is_elsewhere(&row);
        proof.take(&row);
        for (_, value) in json::entries(row.image.or(row.before).unwrap_or("{}")).unwrap_or_default() {
            for name in
                ["int4", "numeric", "bytea", "bit", "date", "time", "timestamp", "timestamptz", "interval", "point", "hstore", "path"]
            {
                let kind = Kind::of(name, -1, false);
                let _ = value::text(value.get(), &Kind::Array(Box::new(kind.clone())), true);
                let _ = value::text(value.get(), &kind, true);
            }
        }
    }
    let snapshots: Vec<u64> = proof.ended_snapshots().collect();
    snapshots.into_iter().for_each(|lsn| proof.snapshot_is_whole(lsn));
    let _ = (proof.advance(), proof.stall().map(|stall| stall.to_string()));
    decoded.raw == 0
}

/// A pack under the name of its own digest: an index that stays inside, or an error; as it is, and with the right digest of its
/// index.
pub fn pack(bytes: &[u8]) -> bool {
    let taken = indexed_pack(bytes);
    let signed = signed_pack(bytes).is_some_and(|signed| indexed_pack(&signed));
    taken || signed
}

/// The same pack with the digest that its index has.
fn signed_pack(bytes: &[u8]) -> Option<Vec<u8>> {
    const MAGIC_BYTES: usize = 8;
    const ENTRY_BYTES: usize = 49;
    let trailer = bytes.len().checked_sub(4 + 32 + MAGIC_BYTES)?;
    let count = u32::from_le_bytes(bytes[trailer..trailer + 4].try_into().ok()?) as usize;
    let index = trailer.checked_sub(count.checked_mul(ENTRY_BYTES)?)?;
    let digest = Digest::of(&bytes[index..trailer]);
    let mut signed = bytes.to_vec();
    signed[trailer + 4..trailer + 36].copy_from_slice(digest.bytes());
    Some(signed)
}

fn indexed_pack(bytes: &[u8]) -> bool {
    let path = format!("pack/v1/00/{}", Digest::of(bytes).short());
    match pack::index_of(&path, bytes) {
        Ok(entries) => {
            for entry in entries {
                let from = usize::try_from(entry.slice.offset).expect("it lies inside");
                let stored = Bytes::copy_from_slice(&bytes[from..from + entry.slice.stored as usize]);
                if let Ok(content) = pack::inflate(&entry.slice, stored) {
                    assert!(content.len() <= SLICE_BYTES);
                }
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().contains(&path), "{error}");
            false
        }
    }
}

/// A manifest whose first line is right: a plan can be made from it, or it is an error that names it.
pub fn manifest(payload: &[u8]) -> bool {
    let digest = Digest::of(&[b"manifest/v1/7\n", payload].concat());
    let mut bytes = format!("hindsight 1 manifest {digest}\n").into_bytes();
    bytes.extend_from_slice(payload);
    match record::decode::<Manifest>("manifest/v1/7", &bytes) {
        Ok(manifest) => {
            let again: Manifest =
                record::decode("manifest/v1/7", &record::encode("manifest/v1/7", &manifest)).expect("what was read can be written");
            assert_eq!(again, manifest);
            let file = FileRef { path: "manifest/v1/7".to_owned(), size: 0, digest: Digest::of(b"") };
            let inventory = Inventory {
                resource: ResourceId::bucket("photos").expect("a name"),
                segments: Vec::new(),
                manifest: Some(record::Numbered { number: 7, file, record: manifest }),
                covers: Default::default(),
                reconciliations: Vec::new(),
                gaps: Vec::new(),
                missing: Vec::new(),
            };
            let inputs = inventory.inputs(Cut::At(Timestamp::from_seconds(1_787_400_000)));
            assert!(inputs.base.is_none_or(|base| base.cut <= Timestamp::from_seconds(1_787_400_000)));
            assert!(inventory.window().is_none());
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("manifest/v1/7"), "{error}");
            false
        }
    }
}

/// A body reference: the text that it was, or none. What it leads to lies in the vault where such things lie, and is read or
/// named; nothing of a vault that has none of it is a content.
pub fn body(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(body) = text.parse::<Body>() else { return false };
    let again: Body = body.to_string().parse().expect("what is written can be read");
    assert_eq!(again, body);
    if let Body::Whole(whole) = &body {
        let path = whole.path();
        assert!(path.starts_with("body/v1/res=bucket-") && !path.contains("..") && path.split('/').count() == 5, "{path}");
    }
    let empty = Vault::new(Arc::new(InMemory::new()), "");
    let read = at_once(async { empty.read_body(&body, Some(Digest::of(b"x"))).await?.try_collect::<Vec<_>>().await });
    assert!(read.is_err(), "{text}");
    true
}

/// An object's key as a path: it stays inside, comes back as the same key, and no other key has it.
pub fn path(key: &[u8]) -> bool {
    let Ok(key) = std::str::from_utf8(key) else { return false };
    if key.is_empty() {
        return false;
    }
    for path in [path::encode(key), path::encode_beside(key)] {
        assert_eq!(path::decode(&path).as_deref(), Some(key));
        for name in path.split('/') {
            assert!(!name.is_empty() && name != "." && name != ".." && name.len() <= 255, "{path:?}");
        }
        assert!(!path.starts_with('/') && !path.contains('\0'), "{path:?}");
        assert_ne!(path.split('/').next(), Some(path::OWN));
    }
    // Whatever is a path of an object is the path of one object only.
    if let Some(decoded) = path::decode(key) {
        assert!([path::encode(&decoded), path::encode_beside(&decoded)].iter().any(|path| path == key), "{key:?}");
    }
    true
}
