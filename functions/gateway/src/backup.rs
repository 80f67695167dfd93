//! One backup of a machine: from a snapshot to a recovery point.
//!
//! ```text
//!  clear up ─→ snapshot ─→ read what changed ─→ packs ─→ segments ─→ the point ─→ the bitmap since the point before is let go of
//! ```
//!
//! Nothing counts before the point is written, and the hypervisor forgets nothing before that either: of a backup that is broken off at any
//! moment the next one reads all that it would have read. Of two backups of one machine at the same time one finds its number taken.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use fail::fail_point;
use handlers::draw::draw;
use handlers::protection::{MachineProtection, Reached};
use pipeline::base::inputs::Inventory;
use pipeline::changelog::points::{self, Excluded, FullReason, Point, PointDisk, PointId, Points};
use pipeline::changelog::{Heads, write};
use pipeline::model::change::BlockRows;
use pipeline::model::{Clock, Digest, Position, ResourceId, Timestamp};
use pipeline::replay::disks::{self, DisksError, Stored};
use pipeline::source::disk::{BLOCK_BYTES, DiskTeller, Stretches, grown, is_zeros};
use pipeline::vault::body::{Body, Slice};
use pipeline::vault::pack::{PACK_BYTES, PackWriter, Placed};
use pipeline::vault::{Created, Vault, VaultError};
use serde::Serialize;

use crate::bitmaps::{BitmapId, Wanted, care, wanted};
use crate::error::GatewayError;
use crate::nbd::{Client, Extent, Patience, Wanted as NbdWanted};
use crate::session::{LiveDisk, Session};
use crate::snapshot::{self, Export, Snapshot};

/// How much of a disk is asked after at once: what is known of it then fits into memory however it is changed. In bytes.
const WINDOW_BYTES: u64 = 64 << 30;
/// How much is read at once, in bytes.
const READ_BYTES: u64 = 1 << 20;
/// Reads at the same time.
const READS_AT_ONCE: usize = 16;
/// Changes in one segment of the log.
const SEGMENT_ROWS: usize = 128 << 10;
/// Blocks of the point before that are remembered to recognise them, where all of a disk is read again: some 100 MiB in memory.
const KNOWN_MAX: usize = 2 << 20;
/// The longest description of a machine that a point keeps, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;
/// Which hypervisor tells, in the log.
const STREAM: &str = "qemu";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The machine.
    pub resource: ResourceId,
    /// How it is reached.
    pub protection: MachineProtection,
    /// Whether all is read, whatever changed.
    pub full: bool,
    /// Whether it is only said what would be read.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// The machine.
    pub resource: ResourceId,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The number of the recovery point.
    pub number: u64,
    /// The point; of a dry run as far as it is known.
    #[serde(flatten)]
    pub point: Point,
    /// What did not go well, and did not matter.
    pub warnings: Vec<String>,
}

/// Makes a recovery point of a machine.
///
/// # Errors
/// [`GatewayError`]; then there is no point, and the next backup misses nothing.
pub async fn backup(vault: &Vault, request: &BackupRequest, clock: &dyn Clock) -> Result<BackupReport, GatewayError> {
    backup_until(vault, request, clock, std::future::pending()).await
}

/// The same, unless it is told to end before it has: then the machine is left as it was found.
///
/// # Errors
/// As [`backup`]; [`GatewayError::Interrupted`].
pub async fn backup_until(
    vault: &Vault,
    request: &BackupRequest,
    clock: &dyn Clock,
    stop: impl Future<Output = ()>,
) -> Result<BackupReport, GatewayError> {
    let description = description(&request.protection)?;
    let began = clock.now();
    let points = Points::read(vault, &request.resource).await?;
    let mut session = Session::open(&request.protection.machine, clock).await?;
    let mut job = Job { vault, request, clock, points, description, began, warnings: Vec::new() };
    let made = tokio::select! {
        made = job.run(&mut session) => Some(made),
        () = stop => None,
    };
    // Whatever became of it, the machine is left as it was found; if that fails too, the first failure is told.
    let closed = session.close().await;
    let Some(made) = made else {
        drop(session);
        closed?;
        return Err(leave(vault, request, clock).await.err().unwrap_or(GatewayError::Interrupted));
    };
    let mut report = made?;
    if let Err(error) = closed {
        job.warn(error);
    }
    report.warnings = job.warnings;
    Ok(report)
}

/// Clears up behind a backup that was told to end, in a session of its own: what was asked for in the other is still being answered.
async fn leave(vault: &Vault, request: &BackupRequest, clock: &dyn Clock) -> Result<(), GatewayError> {
    let newest = Points::read(vault, &request.resource).await?.newest().map(|newest| newest.record.id);
    let mut session = Session::open(&request.protection.machine, clock).await?;
    let left = match snapshot::clear(&mut session).await {
        Ok(()) => settle(&mut session, newest).await,
        Err(error) => Err(error),
    };
    left.and(session.close().await)
}

struct Job<'a> {
    vault: &'a Vault,
    request: &'a BackupRequest,
    clock: &'a dyn Clock,
    points: Points,
    description: Option<String>,
    began: Timestamp,
    warnings: Vec<String>,
}

impl Job<'_> {
    fn warn(&mut self, error: impl fmt::Display) {
        self.warnings.push(format!("the point counts, but the machine was not cleared up behind it: {error}; the next backup does that"));
    }

    async fn run(&mut self, session: &mut Session) -> Result<BackupReport, GatewayError> {
        snapshot::clear(session).await?;
        let newest = self.points.newest().map(|newest| newest.record.clone());
        let mut disks = Vec::new();
        let inventory = Inventory::load(self.vault, &self.request.resource).await?;
        let is_whole = self.points.newest().is_none_or(|newest| match disks::check(&inventory, &self.points, newest) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(resource = %self.request.resource, %error, "the point before cannot be restored; all is read");
                false
            }
        });
        for disk in session.disks().await? {
            let since = newest.as_ref().map(|newest| BitmapId::of(newest.id, &disk.name));
            let care = care(&disk.bitmaps, since, disk.keeps_bitmaps);
            if !self.request.dry_run {
                session.care_for(&disk.node, &care.steps).await?;
            }
            let trusted = if is_whole { care.trusted } else { care.trusted.and(Err(FullReason::BrokenChain)) };
            let wanted = wanted(trusted, newest.as_ref(), &disk, self.request.full);
            if !self.request.dry_run
                && let (Wanted::All(_), Ok(since)) = (&wanted, care.trusted)
            {
                // Of a bitmap that is not read nobody lets go later.
                session.care_for(&disk.node, &[crate::bitmaps::Step::Remove(since)]).await?;
            }
            disks.push((disk, wanted));
        }
        for known in newest.iter().flat_map(|newest| &newest.disks) {
            let is_named = session.excluded.iter().any(|excluded| excluded.disk == known.disk);
            if !is_named && disks.iter().all(|(disk, _)| disk.name != known.disk) {
                let reason = "it was in the point before, and the machine has it no more".to_owned();
                session.excluded.push(Excluded { disk: known.disk.clone(), reason });
            }
        }
        if disks.is_empty() {
            return Err(GatewayError::refused(format!("{} has no disk that can be backed up", self.request.resource)));
        }
        let number = self.points.next_number();
        let mut point = self.blank(session, &disks);
        if self.request.dry_run {
            return Ok(self.report(number, point));
        }
        fail_point!("gateway::before-snapshot");
        let result = self.store(session, &disks, number, &mut point).await;
        let cleared = snapshot::clear(session).await;
        let newest = if result.is_ok() { Some(point.id) } else { newest.map(|newest| newest.id) };
        let settled = match cleared {
            Ok(()) => settle(session, newest).await,
            Err(error) => Err(error),
        };
        fail_point!("gateway::after-settling");
        result?;
        if let Err(error) = settled {
            self.warn(error);
        }
        point.took_ms = self.clock.now().since(self.began).as_millis() as u64;
        Ok(self.report(number, point))
    }

    fn report(&self, number: u64, point: Point) -> BackupReport {
        let (resource, dry_run) = (self.request.resource.clone(), self.request.dry_run);
        BackupReport { resource, dry_run, number, point, warnings: Vec::new() }
    }

    /// The point, as far as it is known before anything is read.
    fn blank(&self, session: &Session, disks: &[(LiveDisk, Wanted)]) -> Point {
        let disk = |(disk, wanted): &(LiveDisk, Wanted)| PointDisk {
            disk: disk.name.clone(),
            size_bytes: disk.size_bytes,
            block_bytes: BLOCK_BYTES,
            full: if let Wanted::All(reason) = wanted { Some(*reason) } else { None },
            rests_on: disk.rests_on.clone(),
            read_bytes: 0,
            blocks: 0,
            zeroed: 0,
            stored_bytes: 0,
        };
        Point {
            id: PointId(draw()),
            at: self.began,
            consistency: session.consistency(),
            hypervisor: format!("QEMU {}", session.qmp.version()),
            disks: disks.iter().map(disk).collect(),
            excluded: session.excluded.clone(),
            description: self.description.clone(),
            segments: Vec::new(),
            paused_us: 0,
            took_ms: 0,
        }
    }

    /// Takes the snapshot, stores what it tells, and writes the point.
    async fn store(&self, session: &mut Session, disks: &[(LiveDisk, Wanted)], number: u64, point: &mut Point) -> Result<(), GatewayError> {
        let snapshot = snapshot::take(session, disks, point.id, self.clock).await?;
        fail_point!("gateway::snapshot-taken");
        (point.at, point.paused_us) = (snapshot.at, snapshot.paused_us);
        let inventory = Inventory::load(self.vault, &self.request.resource).await?;
        let known = self.known(&inventory, disks).await?;
        let mut storing = Storing::new(self.vault, &self.request.resource, self.clock, &inventory, known);
        for (index, (disk, wanted)) in disks.iter().enumerate() {
            let teller = DiskTeller {
                stream: STREAM.to_owned(),
                disk: disk.name.clone(),
                at: snapshot.at,
                position: Position::of_point(number, point.id.0).as_bytes().to_vec(),
                block_bytes: BLOCK_BYTES,
            };
            let reading = Reading { snapshot: &snapshot, export: &snapshot.exports[index], disk, wanted };
            reading.run(&mut storing, teller, &mut point.disks[index]).await?;
        }
        point.segments = storing.finish().await?;
        fail_point!("gateway::before-point");
        point.took_ms = self.clock.now().since(self.began).as_millis() as u64;
        let written = self.vault.write_numbered(&points::folder(&self.request.resource), number, point).await?;
        if written == Created::Existed {
            return Err(GatewayError::refused(format!(
                "another backup of {} ended while this one ran, and this one does not count",
                self.request.resource
            )));
        }
        fail_point!("gateway::after-point");
        Ok(())
    }

    /// Where the blocks of the point before lie, where a disk is read whole that was in it: most of them are as they were.
    async fn known(&self, inventory: &Inventory, disks: &[(LiveDisk, Wanted)]) -> Result<Known, GatewayError> {
        let mut known = Known::default();
        // Who asks for all of it may have lost what the vault had.
        if self.request.full {
            return Ok(known);
        }
        let is_again =
            |wanted: &Wanted| matches!(wanted, Wanted::All(reason) if !matches!(reason, FullReason::First | FullReason::NewDisk));
        let (Some(newest), true) = (self.points.newest(), disks.iter().any(|(_, wanted)| is_again(wanted))) else { return Ok(known) };
        // That the old cannot be restored is no reason not to store the new.
        let read = async {
            let plan = disks::of_point(self.vault, inventory, &self.points, newest).await?;
            plan.for_each_stored(self.vault, async |stored: Vec<Stored>| {
                stored.iter().for_each(|stored| known.remember(stored));
                Ok::<(), VaultError>(())
            })
            .await?;
            Ok::<(), DisksError>(())
        };
        if let Err(error) = read.await {
            tracing::warn!(resource = %self.request.resource, %error, "the point before cannot be read; all is stored anew");
            return Ok(Known::default());
        }
        Ok(known)
    }
}

/// Takes away whatever was left in a machine or its images that is of use to later backups only.
///
/// # Errors
/// [`GatewayError`]; doing it again is safe.
pub async fn let_go(reached: &Reached, clock: &dyn Clock) -> Result<(), GatewayError> {
    let mut session = Session::open(reached, clock).await?;
    let cleared = match snapshot::clear(&mut session).await {
        Ok(()) => settle(&mut session, None).await,
        Err(error) => Err(error),
    };
    let closed = session.close().await;
    cleared.and(closed)
}

/// What becomes of the bitmaps once it is known what the newest point is.
async fn settle(session: &mut Session, newest: Option<PointId>) -> Result<(), GatewayError> {
    for disk in session.disks().await? {
        let care = care(&disk.bitmaps, newest.map(|newest| BitmapId::of(newest, &disk.name)), disk.keeps_bitmaps);
        session.care_for(&disk.node, &care.steps).await?;
    }
    Ok(())
}

/// One disk of a snapshot.
struct Reading<'a> {
    snapshot: &'a Snapshot,
    export: &'a Export,
    disk: &'a LiveDisk,
    wanted: &'a Wanted,
}

impl Reading<'_> {
    async fn run(&self, storing: &mut Storing<'_>, teller: DiskTeller, told: &mut PointDisk) -> Result<(), GatewayError> {
        let broken = |source| GatewayError::Read { disk: self.disk.name.clone(), source };
        let asked = NbdWanted { export: self.export.name.clone(), contexts: vec![self.export.context.clone()] };
        let mut client = Client::connect(&self.snapshot.address, &asked, Patience::default()).await.map_err(broken)?;
        let size = self.disk.size_bytes;
        if client.size() != size {
            let reason =
                format!("disk {} had {size} bytes, and its snapshot has {}: it was resized just now", self.disk.name, client.size());
            return Err(GatewayError::refused(reason));
        }
        let whole = matches!(self.wanted, Wanted::All(_));
        if whole {
            teller.reset(&mut storing.rows);
        }
        let teller = storing.begin_disk(teller);
        for from in (0..size).step_by(WINDOW_BYTES as usize) {
            let window = from..size.min(from + WINDOW_BYTES);
            let extents = client.extents(&self.export.context, window.clone()).await.map_err(broken)?;
            // Of all of a disk what is not zeros; of what changed, what did.
            let is_read = |extent: &Extent| if whole { !extent.is_zeros() } else { extent.is_dirty() };
            let mut stretches: Stretches = extents.into_iter().filter(is_read).map(|extent| extent.range).collect();
            if let Wanted::Since(_, before) = self.wanted {
                stretches = stretches.and(&grown(*before, size, BLOCK_BYTES).within(&window));
            }
            let stretches = stretches.in_blocks(BLOCK_BYTES, size);
            told.read_bytes += stretches.bytes();
            let mut reads = client.reads(stretches.iter().flat_map(pieces), READS_AT_ONCE);
            while let Some(read) = reads.next().await.map_err(broken)? {
                for (index, content) in read.content.chunks(BLOCK_BYTES as usize).enumerate() {
                    let offset = read.offset + index as u64 * u64::from(BLOCK_BYTES);
                    if !is_zeros(content) {
                        told.blocks += 1;
                        told.stored_bytes += storing.content(teller, offset, content);
                    } else if !whole {
                        told.zeroed += 1;
                        storing.zeros(teller, offset);
                    }
                }
                storing.relieve().await?;
            }
        }
        client.close().await.map_err(broken)
    }
}

/// A stretch in pieces of whole blocks.
fn pieces(stretch: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    (stretch.start..stretch.end).step_by(READ_BYTES as usize).map(move |from| from..stretch.end.min(from + READ_BYTES))
}

/// Where known contents lie, by the first half of their digest.
#[derive(Default)]
struct Known {
    packs: Vec<String>,
    numbers: HashMap<String, u32>,
    places: HashMap<u128, (u32, u64, u32, Option<u32>)>,
}

impl Known {
    fn half(digest: &Digest) -> u128 {
        digest.bytes().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
    }

    fn remember(&mut self, stored: &Stored) {
        let Body::Slices(slices) = &stored.body else { return };
        let [Slice { pack, offset, stored: length, inflated }] = &slices[..] else { return };
        if self.places.len() == KNOWN_MAX {
            return;
        }
        let number = match self.numbers.get(pack) {
            Some(number) => *number,
            None => {
                self.packs.push(pack.clone());
                let number = self.packs.len() as u32 - 1;
                self.numbers.insert(pack.clone(), number);
                number
            }
        };
        self.places.insert(Known::half(&stored.digest), (number, *offset, *length, *inflated));
    }

    fn find(&self, digest: &Digest) -> Option<Slice> {
        let (pack, offset, stored, inflated) = self.places.get(&Known::half(digest))?;
        Some(Slice { pack: self.packs[*pack as usize].clone(), offset: *offset, stored: *stored, inflated: *inflated })
    }
}

/// A block whose pack is not in the vault yet.
struct Waiting {
    teller: usize,
    offset: u64,
    size: u64,
    digest: Digest,
    placed: Placed,
}

/// What was read on its way into the vault.
struct Storing<'a> {
    vault: &'a Vault,
    resource: &'a ResourceId,
    clock: &'a dyn Clock,
    heads: Heads,
    known: Known,
    packs: PackWriter,
    tellers: Vec<DiskTeller>,
    waiting: Vec<Waiting>,
    rows: BlockRows,
    segments: Vec<String>,
    at: BTreeMap<usize, Timestamp>,
}

impl<'a> Storing<'a> {
    fn new(vault: &'a Vault, resource: &'a ResourceId, clock: &'a dyn Clock, inventory: &Inventory, known: Known) -> Storing<'a> {
        Storing {
            vault,
            resource,
            clock,
            heads: inventory.heads(),
            known,
            packs: PackWriter::new(),
            tellers: Vec::new(),
            waiting: Vec::new(),
            rows: BlockRows::new(),
            segments: Vec::new(),
            at: BTreeMap::new(),
        }
    }

    /// What is told from now on is told by this one.
    fn begin_disk(&mut self, teller: DiskTeller) -> usize {
        self.at.insert(self.tellers.len(), teller.at);
        self.tellers.push(teller);
        self.tellers.len() - 1
    }

    fn zeros(&mut self, teller: usize, offset: u64) {
        self.tellers[teller].zeros(&mut self.rows, offset);
    }

    /// Takes in a block, and says how many bytes it takes in the vault.
    fn content(&mut self, teller: usize, offset: u64, content: &[u8]) -> u64 {
        let (digest, size) = (Digest::of(content), content.len() as u64);
        if let Some(slice) = self.known.find(&digest) {
            self.tellers[teller].content(&mut self.rows, offset, size, &digest, &slice);
            return 0;
        }
        let before = self.packs.waiting_bytes();
        let placed = self.packs.add_digested(content, digest);
        let stored = self.packs.waiting_bytes().saturating_sub(before) as u64;
        self.waiting.push(Waiting { teller, offset, size, digest, placed });
        stored
    }

    /// Writes what has become much.
    async fn relieve(&mut self) -> Result<(), VaultError> {
        if self.packs.waiting_bytes() >= PACK_BYTES {
            self.flush().await?;
        }
        if self.rows.len() >= SEGMENT_ROWS {
            self.append().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), VaultError> {
        self.packs.flush(self.vault).await?;
        for Waiting { teller, offset, size, digest, placed } in std::mem::take(&mut self.waiting) {
            self.tellers[teller].content(&mut self.rows, offset, size, &digest, &self.packs.find(&placed));
        }
        self.packs.settle();
        Ok(())
    }

    async fn append(&mut self) -> Result<(), VaultError> {
        let latest = self.at.values().copied().max().unwrap_or_default();
        let changes = self.rows.finish();
        let encoded = write::encode(self.resource, &changes, self.clock.now(), latest, self.heads.next());
        let encoded = encoded.map_err(|error| VaultError::damaged("a segment being written", error))?;
        let segment = write::append(self.vault, &encoded).await?;
        self.heads.appended(&segment.name);
        self.segments.push(segment.path);
        Ok(())
    }

    /// Writes what is left, and says in which segments the changes are. A point of which nothing changed has one without rows.
    async fn finish(mut self) -> Result<Vec<String>, VaultError> {
        self.flush().await?;
        if !self.rows.is_empty() || self.segments.is_empty() {
            self.append().await?;
        }
        Ok(self.segments)
    }
}

/// The text that says how the machine is made.
fn description(protection: &MachineProtection) -> Result<Option<String>, GatewayError> {
    let Some(path) = &protection.machine.description else { return Ok(None) };
    let fail = |source| GatewayError::File { what: "read the description", path: path.into(), source };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > DESCRIPTION_BYTES_MAX {
        return Err(GatewayError::refused(format!(
            "the description {path} has {size} bytes, and at most {DESCRIPTION_BYTES_MAX} are kept"
        )));
    }
    std::fs::read_to_string(path).map(Some).map_err(fail)
}
