//! Times of kernels, by the GPU's own clock.
//!
//! *Hot*: so many launches are recorded in a graph that a replay lasts about 2 ms; a sample is a replay over their number.
//! The host plays no part in it, and inputs stay in L2 as far as they fit. *Cold*: L2 is overwritten before a single launch;
//! the overwriting also keeps the GPU busy until the launch is queued, so that the host's time is not counted.

use std::{thread, time::Duration};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::device::{Pace, Samples, TimingPlan};
use crate::driver::{Buffer, Clocks, DriverError, Event, Gpu, Graph, Monitor, Stream};

/// How long a replay should last.
const REPLAY_US: f64 = 2000.0;
/// Most launches in a graph: beyond them a replay's fixed costs no longer show.
const MAX_LAUNCHES: u32 = 200;
/// Launches before anything is timed.
const WARM_LAUNCHES: u32 = 3;
/// How long the GPU works before the first round, so that its clocks have risen.
const WARM_UP_US: f64 = 50_000.0;
/// How long the GPU rests before a burst.
const REST: Duration = Duration::from_millis(50);
/// How long the samples of a burst last together, and how many there are at least.
const BURST_US: f64 = 20_000.0;
const BURST_SAMPLES: usize = 5;
/// L2 is overwritten this many times over.
const FLUSH_FACTOR: u64 = 4;
/// The least to overwrite: some 100 us on the fastest memory, longer than the host needs to queue a launch.
const FLUSH_BYTES: u64 = 256 << 20;
/// Most passes over the flush buffer, for hosts that are slow to queue.
const MAX_FLUSHES: u32 = 64;

/// Work that can be queued time and again: one launch of a subject.
pub trait Work {
    /// Queues one launch without waiting, copying or allocating.
    fn queue(&self, stream: &Stream) -> Result<(), DriverError>;

    /// Bytes of L2 that are set aside for it.
    fn l2_bytes(&self) -> u64 {
        0
    }
}

impl<F: Fn(&Stream) -> Result<(), DriverError>> Work for F {
    fn queue(&self, stream: &Stream) -> Result<(), DriverError> {
        self(stream)
    }
}

/// Times work on one GPU, in a stream of its own.
#[derive(Debug)]
pub struct Timer {
    stream: Stream,
    start: Event,
    end: Event,
    flush: Buffer,
    monitor: Option<Monitor>,
}

/// Work recorded for hot timing.
pub struct Replay<'a> {
    timer: &'a Timer,
    work: &'a dyn Work,
    graph: Graph,
    launches: u32,
}

impl Timer {
    /// A timer for a GPU; it holds a buffer some times the size of L2.
    pub fn new(gpu: &Gpu) -> Result<Self, DriverError> {
        let flush_bytes = (gpu.limits().l2_bytes * FLUSH_FACTOR).max(FLUSH_BYTES);
        Ok(Self {
            stream: Stream::new(gpu)?,
            start: Event::new(gpu)?,
            end: Event::new(gpu)?,
            flush: Buffer::new(gpu, flush_bytes as usize)?,
            monitor: Monitor::open(gpu.uuid()),
        })
    }

    /// The stream the work is queued in.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Records work for hot timing; it runs some times.
    pub fn replay<'a>(&'a self, work: &'a dyn Work) -> Result<Replay<'a>, DriverError> {
        for _ in 0..WARM_LAUNCHES {
            work.queue(&self.stream)?;
        }
        // The mean of a few launches, since a single one is lost in the clock's ticks.
        let once = self.elapsed(|stream| (0..WARM_LAUNCHES).try_for_each(|_| work.queue(stream)))?;
        let launches = launches_for(once / f64::from(WARM_LAUNCHES));
        let graph = Graph::capture(self.stream.gpu(), |stream| (0..launches).try_for_each(|_| work.queue(stream)))?;
        graph.upload(&self.stream)?;
        Ok(Replay { timer: self, work, graph, launches })
    }

    /// Microseconds of one launch with nothing of its data in L2. Includes what the GPU needs to start a kernel.
    pub fn cold_us(&self, work: &dyn Work) -> Result<f64, DriverError> {
        let mut flushes = 1;
        loop {
            self.stream.synchronize()?;
            // Lines that persist would outlast the flush.
            self.stream.gpu().reset_persisting_l2()?;
            for _ in 0..flushes {
                self.flush.fill(&self.stream, 0)?;
            }
            self.stream.record(&self.start)?;
            work.queue(&self.stream)?;
            self.stream.record(&self.end)?;
            let host_was_late = self.start.passed()?;
            self.stream.synchronize()?;
            if !host_was_late || flushes >= MAX_FLUSHES {
                return self.end.microseconds_since(&self.start);
            }
            flushes *= 2;
        }
    }

    /// Times subjects as the plan asks; the GPU is left without L2 set aside.
    pub fn time(&self, subjects: &[&dyn Work], plan: &TimingPlan) -> Result<Vec<Samples>, DriverError> {
        let samples = match plan.pace {
            Pace::Sustained => self.interleave(subjects, plan)?,
            Pace::Burst => subjects.iter().map(|work| self.burst(*work, plan)).collect::<Result<_, _>>()?,
        };
        self.stream.gpu().reset_persisting_l2()?;
        self.stream.gpu().set_aside_l2(0)?;
        Ok(samples)
    }

    /// Times one subject by itself, for so short that the GPU's power does not limit it yet.
    fn burst(&self, work: &dyn Work, plan: &TimingPlan) -> Result<Samples, DriverError> {
        let mut samples = Samples::default();
        self.stream.gpu().reset_persisting_l2()?;
        self.stream.gpu().set_aside_l2(work.l2_bytes())?;
        let replay = self.replay(work)?;
        thread::sleep(REST);
        replay.once_us()?;
        let mut spent = 0.0;
        while samples.hot_us.len() < plan.rounds as usize && (spent < BURST_US || samples.hot_us.len() < BURST_SAMPLES)
        {
            let us = replay.once_us()?;
            spent += us * f64::from(replay.launches);
            samples.hot_us.push(us);
        }
        if plan.cold {
            samples.cold_us = (0..plan.rounds).map(|_| self.cold_us(work)).collect::<Result<_, _>>()?;
        }
        Ok(samples)
    }

    /// Times subjects in turns: `plan.rounds` rounds, each with one sample of every subject, every other one in reverse. A
    /// round in which the GPU throttled is dropped for all subjects, so that samples stay paired, and taken again; at
    /// most as many are dropped as are asked for.
    fn interleave(&self, subjects: &[&dyn Work], plan: &TimingPlan) -> Result<Vec<Samples>, DriverError> {
        let replays = subjects.iter().map(|work| self.replay(*work)).collect::<Result<Vec<_>, _>>()?;
        self.warm_up(&replays)?;

        let mut turns = Turns::new(subjects.len(), plan.seed);
        let mut samples = vec![Samples::default(); subjects.len()];
        let (mut taken, mut throttled) = (0, 0);
        while taken < plan.rounds && throttled < plan.rounds {
            let before = self.clocks();
            let round = self.round(&replays, turns.next_round(), plan.cold)?;
            let after = self.clocks();
            if let (Some(before), Some(after)) = (before, after) {
                tracing::debug!(%before, %after, "round");
            }
            if before.into_iter().chain(after).any(|clocks| clocks.throttled()) {
                throttled += 1;
                continue;
            }
            taken += 1;
            for (subject, hot_us, cold_us) in round {
                samples[subject].hot_us.push(hot_us);
                samples[subject].cold_us.extend(cold_us);
            }
        }
        samples.iter_mut().for_each(|subject| subject.throttled = throttled);
        Ok(samples)
    }

    /// One sample of every subject, in this order.
    fn round(
        &self,
        replays: &[Replay<'_>],
        order: Vec<usize>,
        cold: bool,
    ) -> Result<Vec<(usize, f64, Option<f64>)>, DriverError> {
        let sample = |subject: usize| {
            let replay = &replays[subject];
            // No subject gains or loses by what another asked of L2.
            self.stream.gpu().reset_persisting_l2()?;
            self.stream.gpu().set_aside_l2(replay.work.l2_bytes())?;
            let hot_us = replay.sample_us()?;
            let cold_us = if cold { Some(self.cold_us(replay.work)?) } else { None };
            Ok((subject, hot_us, cold_us))
        };
        order.into_iter().map(sample).collect()
    }

    /// Microseconds per node of a graph of the smallest kernels the driver has, 4-byte fills: what a launch costs at least.
    pub fn launch_overhead_us(&self) -> Result<f64, DriverError> {
        let word = Buffer::new(self.stream.gpu(), 4)?;
        self.replay(&|stream: &Stream| word.fill(stream, 0))?.sample_us()
    }

    /// The GPU's clocks now; `None` where they cannot be read.
    pub fn clocks(&self) -> Option<Clocks> {
        self.monitor.as_ref()?.clocks()
    }

    fn warm_up(&self, replays: &[Replay<'_>]) -> Result<(), DriverError> {
        let mut spent = 0.0;
        for replay in replays.iter().cycle() {
            if spent >= WARM_UP_US {
                break;
            }
            spent += replay.sample_us()? * f64::from(replay.launches);
        }
        Ok(())
    }

    fn elapsed(&self, work: impl FnOnce(&Stream) -> Result<(), DriverError>) -> Result<f64, DriverError> {
        self.stream.record(&self.start)?;
        work(&self.stream)?;
        self.stream.record(&self.end)?;
        self.stream.synchronize()?;
        self.end.microseconds_since(&self.start)
    }
}

impl Replay<'_> {
    /// Microseconds per launch, from one replay after another that warms the caches.
    pub fn sample_us(&self) -> Result<f64, DriverError> {
        self.queue(&self.timer.stream)?;
        self.once_us()
    }

    /// Microseconds per launch of one replay.
    fn once_us(&self) -> Result<f64, DriverError> {
        Ok(self.timer.elapsed(|stream| self.queue(stream))? / f64::from(self.launches))
    }

    fn queue(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: the work, which owns what its launches use, outlives `self`; both callers wait for the replay.
        unsafe { self.graph.launch(stream) }
    }

    /// Microseconds of so many launches, from as many replays as hold them.
    pub fn time_us(&self, launches: u64) -> Result<f64, DriverError> {
        let replays = launches.div_ceil(u64::from(self.launches)).max(1);
        let sum = (0..replays).try_fold(0.0, |sum, _| Ok::<_, DriverError>(sum + self.sample_us()?))?;
        Ok(sum / replays as f64 * launches as f64)
    }
}

/// Launches that fill a replay.
fn launches_for(once_us: f64) -> u32 {
    // A float that is not a number, or too large, ends up at a bound.
    ((REPLAY_US / once_us) as u32).clamp(1, MAX_LAUNCHES)
}

/// In which order subjects take their turns: A B B A, so that a steady drift falls on all alike. Each pair of rounds
/// starts from a new order, so that no subject always follows the same other.
struct Turns {
    generator: ChaCha8Rng,
    order: Vec<usize>,
    forward: bool,
}

impl Turns {
    fn new(subjects: usize, seed: u64) -> Self {
        Self { generator: ChaCha8Rng::seed_from_u64(seed), order: (0..subjects).collect(), forward: false }
    }

    fn next_round(&mut self) -> Vec<usize> {
        self.forward = !self.forward;
        if self.forward {
            self.order.shuffle(&mut self.generator);
        } else {
            self.order.reverse();
        }
        self.order.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_one_turn_a_round_and_pairs_are_mirrored() {
        let mut turns = Turns::new(5, 7);
        for _ in 0..20 {
            let (first, mut second) = (turns.next_round(), turns.next_round());
            second.reverse();
            assert_eq!(first, second);
            let mut sorted = first;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_steady_drift_cancels() {
        let mut turns = Turns::new(3, 1);
        let mut moments = [0; 3];
        for round in 0..10 {
            for (place, subject) in turns.next_round().into_iter().enumerate() {
                moments[subject] += round * 3 + place;
            }
        }
        assert!(moments.iter().all(|moment| *moment == moments[0]), "{moments:?}");
    }

    #[test]
    fn the_order_follows_from_the_seed() {
        let orders = |seed| {
            let mut turns = Turns::new(6, seed);
            std::array::from_fn::<_, 8, _>(|_| turns.next_round())
        };
        assert_eq!(orders(3), orders(3));
        assert_ne!(orders(3), orders(4));
    }

    #[test]
    fn a_replay_lasts_two_milliseconds_or_200_launches() {
        assert_eq!(launches_for(100.0), 20);
        assert_eq!(launches_for(4.0), 200);
        assert_eq!(launches_for(5000.0), 1);
        assert_eq!(launches_for(0.0), 200);
        assert_eq!(launches_for(f64::NAN), 1);
    }
}
