//! A disk that forgets what was not synced: every state in which a loss of power may leave it.
//!
//! ```text
//!  calls ─→ log of effects ─→ crash after any of them ─→ of what was not synced by then: any part
//!           entries of folders (put, taken away)          kept or lost, each on its own
//!           data of files                                 lost, torn, zeros, or kept
//! ```
//!
//! Nothing is assumed of a file system but what POSIX promises: a synced file has its data, and a synced folder its entries.
//! Syncing a file says nothing of its name, and syncing a folder nothing of the folder's own. Renaming within one folder is one
//! effect; from one folder to another it is two.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::trace::Call;
use crate::simulation::random::Random;

/// A file or folder, whatever its name.
type Node = usize;
/// What a name means from here on, if anything.
type Entry = (OsString, Option<Node>);
/// The folder that everything lies in. It is durable.
const ROOT: Node = 0;

/// What one call did to the disk.
#[derive(Debug, Clone)]
enum Effect {
    /// Names in a folder that from here on mean this, or nothing.
    Entries { folder: Node, path: PathBuf, entries: Vec<Entry> },
    /// Bytes at a file's end.
    Append { file: Node, bytes: Vec<u8> },
    /// Whatever happened to this node before `until` is durable from here on.
    Synced { node: Node, until: usize },
    /// Something was promised to somebody.
    Promise(u64),
}

/// What happened to a disk.
pub struct Disk {
    root: PathBuf,
    passing: fn(&Path) -> bool,
    log: Vec<Effect>,
    /// Where in the log something begins to happen: what is before was there.
    beginning: usize,
    nodes: usize,
    folders: HashSet<Node>,
    /// What names mean as long as the power is on.
    names: HashMap<Node, BTreeMap<OsString, Node>>,
    /// Where in the log a file was written to.
    writes: HashMap<Node, Vec<usize>>,
    /// What a file holds after so many writes.
    contents: RefCell<HashMap<(Node, usize), Arc<Content>>>,
}

/// A file's content.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    hash: u64,
}

impl Content {
    fn new(bytes: Vec<u8>) -> Arc<Content> {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Arc::new(Content { hash: hasher.finish(), bytes })
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// A disk after a loss of power: its files with their contents, its folders without.
pub type Tree = BTreeMap<PathBuf, Option<Arc<Content>>>;

/// One state that a disk may be in after a loss of power.
pub struct State {
    /// What is left.
    pub tree: Tree,
    /// Everything that had been promised by then.
    pub promises: Vec<u64>,
    /// How it came to be, for a message.
    pub story: String,
}

/// What became of data that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// Cut off somewhere.
    Torn,
    /// As long as it should be, and zeros from somewhere on.
    Zeros,
}

/// States at one point of the log at most.
const STATES_PER_POINT_MAX: usize = 48;
/// With so many unsynced effects or fewer, all their parts are tried.
const ENUMERATED_MAX: usize = 5;

impl Disk {
    /// The disk of which `root` holds this, durably, by now. `passing` knows names that nobody reads, of files that are being
    /// written: so many of those are never synced that what matters would drown in them.
    pub fn new(root: &Path, passing: fn(&Path) -> bool) -> Disk {
        let root = root.canonicalize().expect("it is there");
        let mut disk = Disk {
            root,
            passing,
            log: Vec::new(),
            beginning: 0,
            nodes: 1,
            folders: HashSet::from([ROOT]),
            names: HashMap::from([(ROOT, BTreeMap::new())]),
            writes: HashMap::new(),
            contents: RefCell::default(),
        };
        for (path, content) in tree_of(&disk.root) {
            match content {
                None => disk.make_folder(&path),
                Some(content) => {
                    let file = disk.make_file(&path);
                    disk.append(file, content.bytes.clone());
                }
            }
        }
        let until = disk.log.len();
        disk.log.extend((0..disk.nodes).map(|node| Effect::Synced { node, until }));
        disk.beginning = disk.log.len();
        disk
    }

    /// Lets a process's calls happen. `promised` says what bytes that were sent promise.
    pub fn happen(&mut self, calls: Vec<Call>, promised: impl Fn(&[u8]) -> Vec<u64>) {
        let mut syncing: HashMap<usize, (Option<Node>, usize)> = HashMap::new();
        for call in calls {
            match call {
                Call::Open { path, create, truncate } => match (self.find(&path), create) {
                    (Some(_), _) if truncate => panic!("the model of a disk does not know how {} is emptied", path.display()),
                    (None, true) if self.is_inside(&path) => drop(self.make_file(&path)),
                    _ => {}
                },
                Call::MakeFolder { path } if self.is_inside(&path) && self.find(&path).is_none() => self.make_folder(&path),
                Call::Write { path, bytes } => {
                    if let Some(file) = self.find(&path) {
                        self.append(file, bytes);
                    }
                }
                Call::SyncBegins { path, ticket } => drop(syncing.insert(ticket, (self.find(&path), self.log.len()))),
                Call::SyncEnds { ticket } => {
                    if let Some((Some(node), until)) = syncing.remove(&ticket) {
                        self.log.push(Effect::Synced { node, until });
                    }
                }
                Call::Link { from, to } => {
                    if let Some(file) = self.find(&from) {
                        self.entries(&[(&to, Some(file))]);
                    }
                }
                Call::Rename { from, to } => {
                    if let Some(node) = self.find(&from) {
                        self.entries(&[(&to, Some(node)), (&from, None)]);
                    }
                }
                Call::Remove { path } if self.find(&path).is_some() => self.entries(&[(&path, None)]),
                Call::Send { bytes } => promised(&bytes).into_iter().for_each(|promise| self.promise(promise)),
                Call::MakeFolder { .. } | Call::Remove { .. } => {}
            }
        }
    }

    /// Takes over what a process that was killed has done in its last calls, which nobody saw end: it happened, and is not synced.
    pub fn catch_up(&mut self) {
        let (known, real) = (self.live(), tree_of(&self.root));
        for path in known.keys().filter(|path| !real.contains_key(*path)) {
            let path = self.root.join(path);
            self.entries(&[(&path, None)]);
        }
        for (path, content) in &real {
            let had = known.get(path);
            match content {
                None if had.is_none() => self.make_folder(path),
                Some(content) if had != Some(&Some(Arc::clone(content))) => {
                    let file = self.find(&self.root.join(path)).unwrap_or_else(|| self.make_file(path));
                    let had = had.and_then(|had| had.as_ref()).map_or(0, |had| had.bytes.len());
                    self.append(file, content.bytes[had..].to_vec());
                }
                _ => {}
            }
        }
    }

    /// Something was promised just now.
    pub fn promise(&mut self, promise: u64) {
        self.log.push(Effect::Promise(promise));
    }

    /// What the disk holds as long as the power is on: that it is what the real one holds says that nothing was missed.
    pub fn live(&self) -> Tree {
        self.crash(self.log.len(), &HashMap::new(), &HashSet::new(), &HashMap::new(), &Random::new(0))
    }

    /// How much has happened.
    pub fn effects(&self) -> usize {
        self.log.len() - self.beginning
    }

    /// Every state at every point, as far as there are not too many of them; each tree with the same promises once.
    pub fn for_each_state(&self, random: &Random, mut each: impl FnMut(State)) {
        let mut known = HashSet::new();
        for at in self.beginning..=self.log.len() {
            let durable = self.durable(at);
            let (entries, data) = self.unsynced(at, &durable);
            let promises: Vec<u64> = self.promises(at);
            let (passing, entries): (Vec<usize>, Vec<usize>) = entries.into_iter().partition(|place| self.is_passing(*place));
            for (mut lost, fates) in choices(&entries, &data, random) {
                lost.extend(passing.iter().filter(|_| random.percent(50)));
                let tree = self.crash(at, &durable, &lost, &fates, random);
                let mut hasher = DefaultHasher::new();
                (&tree, promises.len()).hash(&mut hasher);
                if known.insert(hasher.finish()) {
                    let story = self.tell(at, &lost, &fates);
                    each(State { tree, promises: promises.clone(), story });
                }
            }
        }
    }

    /// Whether an effect is only on names that nobody reads.
    fn is_passing(&self, place: usize) -> bool {
        match &self.log[place] {
            Effect::Entries { path, entries, .. } => entries.iter().all(|(name, _)| (self.passing)(&path.join(name))),
            _ => false,
        }
    }

    fn promises(&self, at: usize) -> Vec<u64> {
        let promise = |effect: &Effect| if let Effect::Promise(promise) = effect { Some(*promise) } else { None };
        self.log[..at].iter().filter_map(promise).collect()
    }

    /// Up to where each node is durable at a point of the log.
    fn durable(&self, at: usize) -> HashMap<Node, usize> {
        let mut durable = HashMap::new();
        for effect in &self.log[..at] {
            if let Effect::Synced { node, until } = effect {
                let known = durable.entry(*node).or_insert(0);
                *known = (*known).max(*until);
            }
        }
        durable
    }

    /// Effects on folders, and files, that are not durable at a point of the log.
    fn unsynced(&self, at: usize, durable: &HashMap<Node, usize>) -> (Vec<usize>, Vec<Node>) {
        let is_durable = |node: &Node, place: usize| durable.get(node).is_some_and(|until| place < *until);
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (place, effect) in self.log[..at].iter().enumerate() {
            match effect {
                Effect::Entries { folder, .. } if !is_durable(folder, place) => entries.push(place),
                Effect::Append { file, .. } if !is_durable(file, place) && !data.contains(file) => data.push(*file),
                _ => {}
            }
        }
        (entries, data)
    }

    /// The disk after a loss of power at a point of the log, when these effects on folders were lost, and of the data of files
    /// that was not synced this became.
    fn crash(
        &self,
        at: usize,
        durable: &HashMap<Node, usize>,
        lost: &HashSet<usize>,
        fates: &HashMap<Node, Fate>,
        random: &Random,
    ) -> Tree {
        let mut names: HashMap<Node, BTreeMap<&OsStr, Node>> = HashMap::new();
        for (place, effect) in self.log[..at].iter().enumerate() {
            let Effect::Entries { folder, entries, .. } = effect else { continue };
            if lost.contains(&place) {
                continue;
            }
            let names = names.entry(*folder).or_default();
            for (name, node) in entries {
                match node {
                    Some(node) => drop(names.insert(name, *node)),
                    None => drop(names.remove(name.as_os_str())),
                }
            }
        }
        let (mut tree, mut open) = (Tree::new(), vec![(ROOT, PathBuf::new())]);
        while let Some((folder, path)) = open.pop() {
            for (name, node) in names.get(&folder).into_iter().flatten() {
                let path = path.join(name);
                if self.folders.contains(node) {
                    tree.insert(path.clone(), None);
                    open.push((*node, path));
                } else {
                    let fate = fates.get(node).copied().unwrap_or(Fate::Kept);
                    tree.insert(path, Some(self.content(*node, at, durable.get(node).copied().unwrap_or(0), fate, random)));
                }
            }
        }
        tree
    }

    /// What a file holds at a point of the log, when this became of what was written to it from `durable` on.
    fn content(&self, file: Node, at: usize, durable: usize, fate: Fate, random: &Random) -> Arc<Content> {
        let writes = self.writes.get(&file).map_or(&[][..], Vec::as_slice);
        let until = |place: usize| {
            let count = writes.partition_point(|write| *write < place);
            let whole = || Content::new(writes[..count].iter().flat_map(|write| self.appended(*write)).copied().collect());
            Arc::clone(self.contents.borrow_mut().entry((file, count)).or_insert_with(whole))
        };
        let whole = until(at);
        if fate == Fate::Kept {
            return whole;
        }
        let (mut bytes, kept) = (whole.bytes.clone(), until(durable.min(at)).bytes.len());
        let cut = kept + random.index(bytes.len() - kept + 1);
        match fate {
            Fate::Kept => {}
            Fate::Lost => bytes.truncate(kept),
            Fate::Torn => bytes.truncate(cut),
            // From somewhere on, and rather all of it than little.
            Fate::Zeros => bytes[kept + (cut - kept) / 2..].fill(0),
        }
        Content::new(bytes)
    }

    fn appended(&self, place: usize) -> &[u8] {
        match &self.log[place] {
            Effect::Append { bytes, .. } => bytes,
            effect => panic!("{effect:?} writes nothing"),
        }
    }

    fn tell(&self, at: usize, lost: &HashSet<usize>, fates: &HashMap<Node, Fate>) -> String {
        let mut lost: Vec<usize> = lost.iter().copied().collect();
        lost.sort_unstable();
        let files = self.files();
        let file = |node: &Node| files.get(node).map_or_else(|| "a folder".to_owned(), |path| path.display().to_string());
        let mut lines =
            vec![format!("the power goes after effect {at} of {}: {}", self.log.len(), self.tell_one(at.checked_sub(1), &file))];
        let lost = lost.into_iter().filter(|place| !self.is_passing(*place));
        lines.extend(lost.map(|place| format!("lost: {}", self.tell_one(Some(place), &file))));
        lines.extend(fates.iter().filter(|(_, fate)| **fate != Fate::Kept).map(|(node, fate)| format!("{fate:?}: {}", file(node))));
        lines.join("\n  ")
    }

    fn tell_one(&self, place: Option<usize>, file: &impl Fn(&Node) -> String) -> String {
        match place.map(|place| &self.log[place]) {
            None => "nothing".to_owned(),
            Some(Effect::Entries { path, entries, .. }) => {
                let one =
                    |(name, node): &Entry| format!("{} {}", if node.is_some() { "put" } else { "took away" }, path.join(name).display());
                entries.iter().map(one).collect::<Vec<_>>().join(" and ")
            }
            Some(Effect::Append { file: node, bytes }) => format!("wrote {} bytes to {}", bytes.len(), file(node)),
            Some(Effect::Synced { node, .. }) => format!("synced {}", file(node)),
            Some(Effect::Promise(promise)) => format!("promised {promise}"),
        }
    }

    /// The last name of every node that has had one.
    fn files(&self) -> HashMap<Node, PathBuf> {
        let entries = self.log.iter().filter_map(|effect| match effect {
            Effect::Entries { path, entries, .. } => Some(entries.iter().filter_map(move |(name, node)| Some(((*node)?, path.join(name))))),
            _ => None,
        });
        entries.flatten().collect()
    }

    fn is_inside(&self, path: &Path) -> bool {
        path.strip_prefix(&self.root).is_ok_and(|inside| inside != Path::new(""))
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let inside = path.strip_prefix(&self.root).ok()?;
        inside.iter().try_fold(ROOT, |folder, name| self.names.get(&folder)?.get(name).copied())
    }

    /// The folder that a path lies in, and its name there. Another thread's call that made the folder may be told of later.
    fn parent(&mut self, path: &Path) -> (Node, OsString) {
        let parent = path.parent().expect("it lies in the root");
        if self.find(parent).is_none() {
            self.make_folder(parent);
        }
        (self.find(parent).expect("it was made just now"), path.file_name().expect("it has a name").to_owned())
    }

    fn new_node(&mut self) -> Node {
        self.nodes += 1;
        self.nodes - 1
    }

    fn make_folder(&mut self, path: &Path) {
        let path = self.root.join(path);
        let node = self.new_node();
        self.folders.insert(node);
        self.names.insert(node, BTreeMap::new());
        self.entries(&[(&path, Some(node))]);
    }

    fn make_file(&mut self, path: &Path) -> Node {
        let path = self.root.join(path);
        let node = self.new_node();
        self.entries(&[(&path, Some(node))]);
        node
    }

    fn append(&mut self, file: Node, bytes: Vec<u8>) {
        self.writes.entry(file).or_default().push(self.log.len());
        self.log.push(Effect::Append { file, bytes });
    }

    /// Names that from here on mean this, or nothing: one effect for each folder.
    fn entries(&mut self, changes: &[(&Path, Option<Node>)]) {
        let mut by_folder: BTreeMap<Node, (PathBuf, Vec<Entry>)> = BTreeMap::new();
        for (path, node) in changes {
            if !self.is_inside(path) {
                continue;
            }
            let (folder, name) = self.parent(path);
            let names = self.names.entry(folder).or_default();
            match node {
                Some(node) => drop(names.insert(name.clone(), *node)),
                None => drop(names.remove(&name)),
            }
            let parent = path.strip_prefix(&self.root).ok().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
            by_folder.entry(folder).or_insert_with(|| (parent, Vec::new())).1.push((name, *node));
        }
        self.log.extend(by_folder.into_iter().map(|(folder, (path, entries))| Effect::Entries { folder, path, entries }));
    }
}

/// What may become of these effects and files together: all of it, where that is not too much; otherwise everything lost or
/// kept, each one alone lost or kept, and some by chance.
fn choices(entries: &[usize], data: &[Node], random: &Random) -> Vec<(HashSet<usize>, HashMap<Node, Fate>)> {
    const FATES: [Fate; 4] = [Fate::Kept, Fate::Lost, Fate::Torn, Fate::Zeros];
    let count = entries.len() + data.len();
    let choose = |kept: &dyn Fn(usize) -> bool, bad: Fate| {
        let lost = entries.iter().enumerate().filter(|(place, _)| !kept(*place)).map(|(_, entry)| *entry).collect();
        let fate = |(place, file): (usize, &Node)| (*file, if kept(entries.len() + place) { Fate::Kept } else { bad });
        (lost, data.iter().enumerate().map(fate).collect::<HashMap<Node, Fate>>())
    };
    let mut chosen = Vec::new();
    if count <= ENUMERATED_MAX {
        for kept in 0..1_u32 << count {
            for bad in if data.is_empty() { &FATES[1..2] } else { &FATES[1..] } {
                chosen.push(choose(&|place| kept >> place & 1 == 1, *bad));
            }
        }
        return chosen;
    }
    for bad in &FATES[1..] {
        chosen.push(choose(&|_| false, *bad));
    }
    chosen.push(choose(&|_| true, Fate::Lost));
    // The last are the most likely to matter.
    for one in (0..count).rev().take(STATES_PER_POINT_MAX / 4) {
        chosen.push(choose(&|place| place == one, Fate::Lost));
        chosen.push(choose(&|place| place != one, Fate::Torn));
    }
    while chosen.len() < STATES_PER_POINT_MAX {
        let lost = entries.iter().filter(|_| random.percent(50)).copied().collect();
        let fates = data.iter().map(|file| (*file, random.pick(&FATES))).collect();
        chosen.push((lost, fates));
    }
    chosen
}

/// Everything under a folder that is there.
pub fn tree_of(root: &Path) -> Tree {
    let (mut tree, mut open) = (Tree::new(), vec![PathBuf::new()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).expect("a folder") {
            let path = folder.join(entry.expect("a readable folder").file_name());
            if root.join(&path).is_dir() {
                tree.insert(path.clone(), None);
                open.push(path);
            } else {
                tree.insert(path.clone(), Some(Content::new(std::fs::read(root.join(&path)).expect("a readable file"))));
            }
        }
    }
    tree
}

/// Writes a tree into an empty folder.
pub fn lay_out(tree: &Tree, root: &Path) {
    for (path, content) in tree {
        match content {
            None => std::fs::create_dir(root.join(path)).expect("a folder"),
            Some(content) => std::fs::write(root.join(path), &content.bytes).expect("a file"),
        }
    }
}
