//! The last event at each byte of shared memory. Mostly a chunk is touched as a whole, and one number says it of all its
//! bytes.

use crate::shared::CHUNK;

/// An access: the clock in the upper half; below it who stored, or the lanes that loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event(u64);

impl Event {
    pub(crate) fn new(clock: u32, who: u32) -> Self {
        Self(u64::from(clock) << 32 | u64::from(who))
    }

    pub(crate) fn clock(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn who(self) -> u32 {
        self.0 as u32
    }
}

/// Stands for a chunk whose bytes differ, or did: no clock gets that far.
const MIXED: u64 = u64::MAX;

/// Events by chunk, for some number of agents each.
pub(crate) struct Events {
    agents: usize,
    /// By chunk and agent: the [`Event`] of all bytes, or [`MIXED`]. Numbers, so that tables of untouched memory cost nothing.
    chunks: Vec<u64>,
    /// By chunk, agent and byte, where they are mixed.
    bytes: Vec<u64>,
}

impl Events {
    pub(crate) fn new(bytes: usize, agents: usize) -> Self {
        Self { agents, chunks: vec![0; bytes / CHUNK * agents], bytes: vec![0; bytes * agents] }
    }

    /// The events of an agent at `part`: of each byte, or one that is of all.
    #[inline]
    pub(crate) fn at(&self, part: Part, agent: usize) -> impl Iterator<Item = Event> {
        let slot = part.chunk * self.agents + agent;
        let events = match &self.chunks[slot] {
            &MIXED => &self.bytes[slot * CHUNK + part.first..][..part.bytes],
            event => std::slice::from_ref(event),
        };
        events.iter().map(|&event| Event(event))
    }

    /// Changes the events of an agent at `part`.
    #[inline]
    pub(crate) fn update(&mut self, part: Part, agent: usize, change: impl Fn(Event) -> Event) {
        let slot = part.chunk * self.agents + agent;
        let whole = part.bytes == CHUNK;
        let all = &mut self.chunks[slot];
        let bytes = &mut self.bytes[slot * CHUNK..][..CHUNK];
        if *all != MIXED {
            let changed = change(Event(*all)).0;
            if whole || changed == *all {
                *all = changed;
                return;
            }
            bytes.fill(*all);
            *all = MIXED;
        }
        let bytes = &mut bytes[part.first..][..part.bytes];
        bytes.iter_mut().for_each(|event| *event = change(Event(*event)).0);
        if whole && bytes.iter().all(|event| *event == bytes[0]) {
            *all = bytes[0];
        }
    }

    /// Sets the events of an agent at `part`.
    #[inline]
    pub(crate) fn set(&mut self, part: Part, agent: usize, event: Event) {
        if part.bytes == CHUNK {
            self.chunks[part.chunk * self.agents + agent] = event.0;
        } else {
            self.update(part, agent, |_| event);
        }
    }
}

/// Bytes within one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) chunk: usize,
    first: usize,
    bytes: usize,
}

impl Part {
    /// Address of the first byte.
    pub(crate) fn address(self) -> u32 {
        (self.chunk * CHUNK + self.first) as u32
    }

    /// The parts of `bytes` bytes at `at`.
    #[inline]
    pub(crate) fn of(at: u32, bytes: u32) -> impl Iterator<Item = Self> {
        let (mut at, end) = (at as usize, (at + bytes) as usize);
        std::iter::from_fn(move || {
            let part = Self { chunk: at / CHUNK, first: at % CHUNK, bytes: (CHUNK - at % CHUNK).min(end - at) };
            at += part.bytes;
            (part.bytes > 0).then_some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(at: u32, bytes: u32) -> Part {
        Part::of(at, bytes).next().unwrap()
    }

    /// The events of agent 1 byte by byte, each asked for alone.
    fn bytes(events: &Events) -> Vec<u32> {
        (16..48).map(|at| events.at(part(at, 1), 1).map(Event::clock).sum()).collect()
    }

    #[test]
    fn bytes_keep_their_own_events() {
        let mut events = Events::new(64, 2);
        events.set(part(16, 16), 1, Event::new(1, 0));
        events.set(part(20, 4), 1, Event::new(2, 0));
        events.update(part(22, 1), 1, |event| Event::new(event.clock() + 5, event.who()));
        events.set(part(20, 4), 0, Event::new(9, 0));
        let expected = [&[1; 4][..], &[2, 2, 7, 2], &[1; 8], &[0; 16]].concat();
        assert_eq!(bytes(&events), expected);
        assert_eq!(events.at(part(16, 16), 1).count(), 16);
        events.update(part(16, 16), 1, |_| Event::new(8, 0));
        assert_eq!(events.at(part(16, 16), 1).collect::<Vec<_>>(), [Event::new(8, 0)]);
        assert_eq!(bytes(&events)[..17], [&[8; 16][..], &[0]].concat());
    }

    #[test]
    fn parts_end_with_their_chunk() {
        let parts: Vec<_> = Part::of(12, 24).collect();
        let part = |chunk, first, bytes| Part { chunk, first, bytes };
        assert_eq!(parts, [part(0, 12, 4), part(1, 0, 16), part(2, 0, 4)]);
        assert!(parts.into_iter().map(Part::address).eq([12, 16, 32]));
        assert_eq!(Part::of(12, 0).count(), 0);
    }
}
