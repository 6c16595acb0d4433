//! The probes as rows of a table, and how an executor's output is judged.

mod barrier;
mod cluster;
mod copy;
mod element;
mod grid;
mod math;
mod matrix;
mod mbarrier;
mod memory;
mod thread;
mod tma;
mod values;
mod warp;
mod wgmma;

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use spec::PlainMap;

use super::Args;
use values::words;

/// How exactly two executors must agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Agreement {
    /// On every bit.
    Bits,
    /// On fp32 values: NaN with NaN, else exactly or, where finite, within `relative` of the expected value or `absolute`.
    Floats {
        /// Share of the expected value's size.
        relative: f32,
        /// Absolute error.
        absolute: f32,
    },
}

impl Agreement {
    /// On fp32 values bit by bit, except that any NaN is as good as another.
    pub const ANY_NAN: Self = Self::Floats { relative: 0.0, absolute: 0.0 };
}

/// One operation's test.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its entry point's name in PTX.
    pub name: &'static str,
    /// Blocks of the launch.
    pub blocks: u32,
    /// Blocks of a cluster, 1 for none.
    pub cluster: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Whether its PTX exists for sm_90a alone.
    pub hopper: bool,
    /// Makes the input.
    pub input: fn() -> Vec<u8>,
    /// Makes the map of the input's 16-bit elements, from the input's address, for those that take one.
    pub map: Option<fn(u64) -> PlainMap>,
    /// What the output must be for an input.
    pub expected: fn(&[u8]) -> Vec<u8>,
    /// How exactly.
    pub agreement: Agreement,
    /// The entry point, for a thread of the CPU machine.
    pub entry: fn(Args),
}

impl Probe {
    /// A probe of one block without shared memory that must agree on every bit.
    const fn new(
        name: &'static str,
        entry: fn(Args),
        threads: u32,
        input: fn() -> Vec<u8>,
        expected: fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        Self {
            name,
            blocks: 1,
            cluster: 1,
            threads,
            shared_bytes: 0,
            hopper: false,
            input,
            map: None,
            expected,
            agreement: Agreement::Bits,
            entry,
        }
    }

    const fn blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    const fn clusters(self, cluster: u32) -> Self {
        Self { cluster, ..self }
    }

    const fn mapped(self, map: fn(u64) -> PlainMap) -> Self {
        Self { map: Some(map), ..self }
    }

    const fn shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    const fn hopper(self) -> Self {
        Self { hopper: true, ..self }
    }

    const fn agreeing(self, agreement: Agreement) -> Self {
        Self { agreement, ..self }
    }

    /// Runs it on the CPU machine, races checked, and judges the output.
    ///
    /// # Errors
    ///
    /// A line that says what is wrong: a fault or a difference.
    pub fn run_on_cpu(&self, seed: u64) -> Result<(), String> {
        let input = (self.input)();
        let mut output = vec![POISON; (self.expected)(&input).len()];
        let mut launch = simt::Launch::new(self.name, self.blocks, self.threads);
        (launch.cluster, launch.shared_bytes, launch.seed) = (self.cluster, self.shared_bytes, seed);
        let args = Args { input: simt::address_of(0), output: simt::address_of(1), map: simt::address_of(2) };
        let map = self.map.map_or([0; 16], |map| map(args.input).to_words()).map(u64::to_le_bytes);
        let buffers = &mut [
            simt::Buffer::read("input", &input),
            simt::Buffer::write("output", &mut output),
            simt::Buffer::read("map", map.as_flattened()),
        ];
        simt::run(&launch, buffers, || (self.entry)(args)).map_err(|fault| format!("{fault}"))?;
        self.judge(&input, &output)
    }

    /// Judges an executor's output.
    ///
    /// # Errors
    ///
    /// A line that names the first difference.
    pub fn judge(&self, input: &[u8], output: &[u8]) -> Result<(), String> {
        let expected = (self.expected)(input);
        if expected.len() != output.len() {
            return Err(format!("{} bytes of output, expected {}", output.len(), expected.len()));
        }
        for (i, (want, got)) in words(&expected).zip(words(output)).enumerate() {
            let (a, b) = (f32::from_bits(want), f32::from_bits(got));
            let agrees = match self.agreement {
                Agreement::Bits => want == got,
                Agreement::Floats { relative, absolute } => {
                    let allowed = absolute.max(relative * a.abs());
                    let near = allowed > 0.0 && a.is_finite() && (a - b).abs() <= allowed;
                    want == got || a.is_nan() && b.is_nan() || near
                }
            };
            if !agrees {
                return Err(format!("output word {i} is {got:#010x} ({b:e}), expected {want:#010x} ({a:e})"));
            }
        }
        Ok(())
    }
}

/// What outputs hold before a probe runs; no probe's expected output is made of it.
pub const POISON: u8 = 0xa5;

/// All probes.
pub fn all() -> impl Iterator<Item = Probe> {
    [
        barrier::PROBES,
        cluster::PROBES,
        grid::PROBES,
        copy::PROBES,
        element::PROBES,
        math::PROBES,
        matrix::PROBES,
        mbarrier::PROBES,
        memory::PROBES,
        thread::PROBES,
        tma::PROBES,
        warp::PROBES,
        wgmma::PROBES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_probe_accepts_what_was_there_before() {
        for probe in all() {
            let input = (probe.input)();
            let untouched = vec![POISON; (probe.expected)(&input).len()];
            assert!(probe.judge(&input, &untouched).is_err(), "{}", probe.name);
            assert!(probe.judge(&input, &untouched[4..]).is_err(), "{}", probe.name);
        }
    }

    #[test]
    fn floats_agree_within_their_tolerance_alone() {
        let agrees = |agreement, want: f32, got: f32| {
            let probe = Probe::new("p", |_| (), 32, Vec::new, <[u8]>::to_vec).agreeing(agreement);
            probe.judge(&want.to_le_bytes(), &got.to_le_bytes()).is_ok()
        };
        let near = Agreement::Floats { relative: 0.01, absolute: 0.1 };
        assert!(agrees(near, 100.0, 100.9) && !agrees(near, 100.0, 101.1));
        assert!(agrees(near, 0.0, -0.05) && !agrees(near, 0.0, 0.15));
        assert!(agrees(near, f32::INFINITY, f32::INFINITY) && !agrees(near, f32::INFINITY, f32::MAX));
        assert!(!agrees(near, f32::MAX, f32::INFINITY) && !agrees(near, 1.0, f32::NAN));
        assert!(agrees(Agreement::ANY_NAN, f32::NAN, -f32::NAN) && !agrees(Agreement::ANY_NAN, 0.0, -0.0));
        assert!(!agrees(Agreement::Bits, f32::NAN, -f32::NAN));
    }
}
