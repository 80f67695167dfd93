//! Which of several sorted runs has the least object.
//!
//! ```text
//!                 winner              a node keeps who lost there, and how far that is from who won
//!              ┌─── 1 ───┐
//!            ┌ 2 ┐     ┌ 3 ┐          the next object of the winner's run plays against those on its way up only
//!           run run   run run
//! ```
//!
//! All that is compared are [steps](Step): how far an object is from one that is not greater than it. Of two steps from the same
//! object the lesser leads to the lesser object, and the greater is also the step from there to the greater one. So bytes are
//! looked at only where two steps are equal, and from there on (offset-value coding: Conner, IBM Technical Disclosure
//! Bulletin, 1977; Do and Graefe, "Robust and Efficient Sorting with Offset-Value Coding", 2022).

/// How far an object is from one that is not greater: the offset of the first byte that differs, and that byte. The lesser the
/// offset the greater the step, and then the greater the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step(u64);

impl Step {
    /// To the same object.
    pub const NONE: Step = Step(0);
    /// Behind the last object.
    pub const ENDED: Step = Step(u64::MAX);

    /// The step from one object to another, which agree up to an offset; none where that leads back. The empty object is before
    /// all others.
    pub fn between(from: &[u8], to: &[u8], agree: usize) -> Option<Step> {
        let Some(offset) = first_difference(from, to, agree) else { return Some(Step::NONE) };
        let byte = *to.get(offset)?;
        let is_forward = from.get(offset).is_none_or(|before| *before < byte);
        is_forward.then(|| Step(u64::from(u32::MAX - offset as u32) << u8::BITS | u64::from(byte)))
    }

    fn offset(self) -> usize {
        (u32::MAX - (self.0 >> u8::BITS) as u32) as usize
    }
}

/// Where two byte strings that agree up to an offset differ.
fn first_difference(a: &[u8], b: &[u8], agree: usize) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    let (a_rest, b_rest) = (a.get(agree..).unwrap_or_default(), b.get(agree..).unwrap_or_default());
    let (a_words, b_words) = (a_rest.as_chunks::<WORD>().0, b_rest.as_chunks::<WORD>().0);
    for (index, (a, b)) in a_words.iter().zip(b_words).enumerate() {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return Some(agree + index * WORD + (differing.trailing_zeros() / u8::BITS) as usize);
        }
    }
    let words = a_words.len().min(b_words.len()) * WORD;
    let (a_tail, b_tail) = (&a_rest[words..], &b_rest[words..]);
    let differs = a_tail.iter().zip(b_tail).position(|(a, b)| a != b);
    let ends = (a_tail.len() != b_tail.len()).then_some(a_tail.len().min(b_tail.len()));
    differs.or(ends).map(|at| agree + words + at)
}

/// A run, and how far its object is from the last that won, or, of a loser, from who won there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub run: usize,
    pub step: Step,
}

/// A tree of losers.
pub(super) struct Tournament {
    /// Of each inner node who lost there; node 0 has the winner of all. None where nobody has come yet.
    nodes: Vec<Option<Head>>,
}

impl Tournament {
    /// A tournament that so many runs will enter.
    pub fn of(runs: usize) -> Tournament {
        Tournament { nodes: vec![None; runs.max(1)] }
    }

    /// The run with the least object; none when all have ended. Its step is none where that is the object that won before.
    pub fn first(&self) -> Option<Head> {
        self.nodes[0].filter(|head| head.step != Step::ENDED)
    }

    /// A run comes with its first object, and its step from the empty one.
    pub fn enter<'a>(&mut self, head: Head, object: impl Fn(usize) -> &'a [u8]) {
        let mut rising = head;
        let mut node = self.leaf(head.run);
        while node > 0 {
            match self.nodes[node] {
                None => {
                    self.nodes[node] = Some(rising);
                    return;
                }
                Some(other) => {
                    let (winner, loser) = play(rising, other, &object);
                    self.nodes[node] = Some(loser);
                    rising = winner;
                }
            }
            node /= 2;
        }
        self.nodes[0] = Some(rising);
    }

    /// The run that won comes with its next object, and its step from the one with which it won.
    pub fn replay<'a>(&mut self, head: Head, object: impl Fn(usize) -> &'a [u8]) {
        let mut rising = head;
        let mut node = self.leaf(head.run);
        while node > 0 {
            if let Some(other) = self.nodes[node] {
                let (winner, loser) = play(rising, other, &object);
                self.nodes[node] = Some(loser);
                rising = winner;
            }
            node /= 2;
        }
        self.nodes[0] = Some(rising);
    }

    fn leaf(&self, run: usize) -> usize {
        (run + self.nodes.len()) / 2
    }
}

/// The winner, and the loser with its step from there. Both have steps from the same object.
fn play<'a>(a: Head, b: Head, object: impl Fn(usize) -> &'a [u8]) -> (Head, Head) {
    if a.step != b.step {
        return if a.step < b.step { (a, b) } else { (b, a) };
    }
    if a.step == Step::NONE || a.step == Step::ENDED {
        return (a, b);
    }
    let agree = a.step.offset() + 1;
    match Step::between(object(a.run), object(b.run), agree) {
        Some(step) => (a, Head { step, ..b }),
        None => {
            let step = Step::between(object(b.run), object(a.run), agree).unwrap_or(Step::NONE);
            (b, Head { step, ..a })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_step_is_to_where_two_objects_differ() {
        assert_eq!(Step::between(b"", b"a", 0), Some(Step(u64::from(u32::MAX) << 8 | u64::from(b'a'))));
        assert_eq!(Step::between(b"abc", b"abc", 0), Some(Step::NONE));
        assert_eq!(Step::between(b"abd", b"abc", 0), None);
        let long = b"photos/2026/007/image-0014000.jpg";
        let next = b"photos/2026/007/image-0014003.jpg";
        assert_eq!(Step::between(long, next, 0).map(Step::offset), Some(28));
        assert_eq!(Step::between(long, next, 27).map(Step::offset), Some(28));
    }

    proptest! {
        #[test]
        fn two_byte_strings_differ_where_they_differ(a in "[ab]{0,20}", b in "[ab]{0,20}", agree in 0usize..4) {
            let agree = if a.get(..agree) == b.get(..agree) && a.len() >= agree && b.len() >= agree { agree } else { 0 };
            let expected = (agree..a.len().max(b.len())).find(|&at| a.as_bytes().get(at) != b.as_bytes().get(at));
            prop_assert_eq!(first_difference(a.as_bytes(), b.as_bytes(), agree), expected);
        }

        #[test]
        fn runs_come_out_sorted(runs in proptest::collection::vec(proptest::collection::btree_set("[ab]{0,10}", 0..12), 0..9)) {
            // No object is the beginning of another: they end with what occurs in none.
            let runs: Vec<Vec<String>> = runs.into_iter().map(|run| run.into_iter().map(|object| object + "!").collect()).collect();
            let mut at = vec![0; runs.len()];
            let step = |run: usize, at: usize| {
                let before = at.checked_sub(1).map_or(&b""[..], |before| runs[run][before].as_bytes());
                runs[run].get(at).map_or(Step::ENDED, |object| Step::between(before, object.as_bytes(), 0).unwrap())
            };
            let object = |at: &[usize], run: usize| runs[run].get(at[run]).map_or(&b""[..], |object| object.as_bytes());
            let mut tournament = Tournament::of(runs.len());
            for run in 0..runs.len() {
                tournament.enter(Head { run, step: step(run, 0) }, |run| object(&at, run));
            }
            let mut out: Vec<String> = Vec::new();
            while let Some(Head { run, step: from_before }) = tournament.first() {
                let won = runs[run][at[run]].clone();
                prop_assert_eq!(from_before == Step::NONE, out.last() == Some(&won));
                out.push(won);
                at[run] += 1;
                tournament.replay(Head { run, step: step(run, at[run]) }, |run| object(&at, run));
            }
            let mut expected: Vec<String> = runs.concat();
            expected.sort();
            prop_assert_eq!(out, expected);
        }
    }
}
