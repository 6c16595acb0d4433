//! The record of a sweep: every variant of a declared part of the space, measured on one GPU.
//!
//! A [log] of a header and then rows, compressed with zstd once it is complete. Failures are rows too.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde::{Deserialize, Serialize};
use spec::{Problem, Variant};

use super::{
    file::{self, FileError},
    log::{self, LogError},
};
use crate::{
    device::{Correctness, Description, Failure, Samples},
    evolve::{
        settings::Peers,
        source::{Facts, gate},
    },
    measure::statistics,
};

/// Version of the record's format. 1 had no [`Entry::Again`].
pub const SCHEMA: u32 = 2;
/// The oldest version that is read.
const OLDEST: u32 = 1;

/// Whether records of this version are read.
pub(super) fn is_known(schema: u64) -> bool {
    (OLDEST.into()..=SCHEMA.into()).contains(&schema)
}

/// Compression level: records are written once and read often.
const LEVEL: i32 = 19;

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was asked of the variants.
    pub problem: Problem,
    /// The GPU they ran on.
    pub device: Description,
    /// What compiled them.
    pub toolchain: String,
    /// When the sweep began, UTC, `YYYY-MM-DD`.
    pub date: String,
    /// Which part of the space was measured, in words.
    pub part: String,
    /// Variants in that part.
    pub planned: usize,
    /// Variant that every batch was interleaved with.
    pub reference: Variant,
}

/// What became of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The variant, as text: rows outlive changes of the space.
    pub variant: String,
    /// Hash of its code; none if it did not compile.
    pub sha256: Option<String>,
    /// What the assembler said.
    pub facts: Option<Facts>,
    /// Its measurement, or why there is none.
    pub result: Result<Measurement, Failure>,
    /// UUID of the GPU it ran on, if that is not the header's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
}

/// A correct variant's times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// How it did on the cases.
    pub correctness: Correctness,
    /// Its times.
    pub samples: Samples,
    /// Median hot time of the reference in the same batch, in microseconds.
    pub reference_us: f64,
}

/// A line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "the large one is the first line, of which there is one")]
pub enum Entry {
    /// The first line.
    Header(Header),
    /// One variant.
    Row(Row),
    /// One of the fastest, measured again: the first measurement chose it and is too good to be true.
    Again(Row),
    /// An A/A test of the reference.
    Noise {
        /// One label.
        a: Samples,
        /// The other.
        b: Samples,
    },
    /// What others took in the same hour on the same GPU.
    Peers(Peers),
}

/// A record in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// What it is of.
    pub header: Header,
    /// Rows of variants that this program knows, with their variants.
    pub rows: Vec<(Variant, Row)>,
    /// Rows of variants that it does not know (any more).
    pub unknown: usize,
    /// The fastest, measured again.
    pub again: Vec<(Variant, Row)>,
    /// The A/A tests.
    pub noise: Vec<(Samples, Samples)>,
    /// What others took.
    pub peers: Peers,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its lines are damaged.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Records that are no shares of one sweep.
    #[error("the {what} of two records differ: {one}, {other}")]
    Strangers {
        /// What differs.
        what: &'static str,
        /// In the first.
        one: String,
        /// In another.
        other: String,
    },
    /// A variant that two records to be joined hold.
    #[error("two records hold {0}")]
    Twice(Variant),
    /// Nothing to be joined.
    #[error("there is no record to be joined")]
    Nothing,
    /// It cannot be written as JSON.
    #[error("a record cannot be written as JSON: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// It is no record of this version.
    #[error("{path}: line {line}: {reason}; this program reads sweep records of schema {OLDEST} to {SCHEMA}")]
    Format {
        /// The file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Sweep {
    /// Reads a compressed record.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let at = FileError::at(path);
        let bytes = std::fs::read(path).map_err(&at)?;
        let bytes = zstd::decode_all(bytes.as_slice()).map_err(&at)?;
        Self::from_entries(path, &log::entries(path, &bytes)?)
    }

    /// A record from its lines.
    pub fn from_entries(path: &Path, lines: &[String]) -> Result<Self, RecordError> {
        let fault =
            |line: usize, reason: String| RecordError::Format { path: path.display().to_string(), line, reason };
        let first = lines.first().ok_or_else(|| fault(1, "the record is empty".into()))?;
        let schema: serde_json::Value = serde_json::from_str(first).map_err(|e| fault(1, e.to_string()))?;
        let schema = &schema["header"]["schema"];
        if !schema.as_u64().is_some_and(is_known) {
            return Err(fault(1, format!("the schema is {schema}")));
        }
        let mut header = None;
        let (mut rows, mut again, mut unknown, mut noise, mut peers) = (vec![], vec![], 0, vec![], Peers::default());
        for (i, line) in lines.iter().enumerate() {
            match serde_json::from_str(line).map_err(|e| fault(i + 1, e.to_string()))? {
                Entry::Header(found) => header = Some(found),
                Entry::Row(row) => match row.variant.parse() {
                    Ok(variant) => rows.push((variant, row)),
                    Err(_) => unknown += 1,
                },
                Entry::Again(row) => again.extend(row.variant.parse().ok().map(|variant| (variant, row))),
                Entry::Noise { a, b } => noise.push((a, b)),
                Entry::Peers(found) => peers.join(found),
            }
        }
        let header = header.ok_or_else(|| fault(1, "there is no header".into()))?;
        Ok(Self { header, rows, unknown, again, noise, peers })
    }

    /// Median hot time of the reference over all batches, in microseconds: the scale of the record.
    pub fn reference_us(&self) -> f64 {
        let of = |(_, row): &(Variant, Row)| Some(row.result.as_ref().ok()?.reference_us);
        statistics::median(&self.rows.iter().filter_map(of).collect::<Vec<_>>())
    }

    /// What each variant that may be measured takes, in microseconds on the record's scale: its median hot time, that of
    /// its later measurements where there are some.
    pub fn times(&self) -> HashMap<Variant, f64> {
        let scale = self.reference_us();
        let time = |row: &Row| {
            let Measurement { samples, reference_us, .. } = row.result.as_ref().ok()?;
            Some(statistics::median(&samples.hot_us) * scale / reference_us)
        };
        let passes = |row: &Row| row.facts.as_ref().is_none_or(|facts| gate(facts).is_ok());
        let mut times: HashMap<Variant, f64> = self
            .rows
            .iter()
            .filter(|(_, row)| passes(row))
            .filter_map(|(variant, row)| Some((*variant, time(row)?)))
            .collect();
        let mut again: HashMap<Variant, Vec<f64>> = HashMap::new();
        for (variant, row) in &self.again {
            again.entry(*variant).or_default().extend(time(row));
        }
        for (variant, later) in again.into_iter().filter(|(_, later)| !later.is_empty()) {
            times.entry(variant).and_modify(|time| *time = statistics::median(&later));
        }
        times
    }

    /// How much being prepared anew moves a kernel's time, as log-ratios: the two labels of each A/A test, and the
    /// reference in one batch against itself in the batch before, since it is prepared anew for each. (A step of the
    /// clocks between two batches moves one of them only.)
    pub fn preparations(&self) -> Vec<f64> {
        let hot = |samples: &Samples| statistics::median(&samples.hot_us).ln();
        let labels = self.noise.iter().map(|(a, b)| hot(a) - hot(b));
        let mut references: BTreeMap<Option<&str>, Vec<f64>> = BTreeMap::new();
        for (_, row) in &self.rows {
            let of_batch = row.result.as_ref().ok().map(|measured| measured.reference_us.ln());
            references.entry(row.gpu.as_deref()).or_default().extend(of_batch);
        }
        // Two GPUs are two things to be measured, not two looks at one.
        let batches: Vec<f64> = references
            .into_values()
            .flat_map(|mut batches| {
                batches.dedup();
                batches.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
            })
            .collect();
        // The difference of two equally distributed moves is wider than one by the square root of 2.
        labels.chain(batches).map(|difference| difference / 2f64.sqrt()).collect()
    }

    /// One record of several, which were measured on GPUs of one model with one reference. Each row says on which GPU.
    pub fn join(records: Vec<Self>) -> Result<Self, RecordError> {
        let mut records = records.into_iter();
        let mut all = records.next().ok_or(RecordError::Nothing)?;
        all.header.schema = SCHEMA;
        for record in records {
            let (one, other) = (&all.header, &record.header);
            let model = |header: &Header| {
                let Description { kind, name, driver, limits, .. } = &header.device;
                format!("{kind:?} {name}, driver {driver}, {limits:?}")
            };
            for (what, one, other) in [
                ("problems", one.problem.to_string(), other.problem.to_string()),
                ("devices", model(one), model(other)),
                ("toolchains", one.toolchain.clone(), other.toolchain.clone()),
                ("references", one.reference.to_string(), other.reference.to_string()),
            ] {
                if one != other {
                    return Err(RecordError::Strangers { what, one, other });
                }
            }
            let uuid = &record.header.device.uuid;
            let elsewhere = (*uuid != all.header.device.uuid).then(|| uuid.clone());
            all.header.planned += record.header.planned;
            all.header.part += &format!("; {}", record.header.part);
            let here = all.header.device.uuid.clone();
            let placed = |(variant, row): (Variant, Row)| {
                let gpu = row.gpu.or_else(|| elsewhere.clone()).filter(|gpu| *gpu != here);
                (variant, Row { gpu, ..row })
            };
            all.rows.extend(record.rows.into_iter().map(placed));
            all.again.extend(record.again.into_iter().map(placed));
            all.unknown += record.unknown;
            all.noise.extend(record.noise);
            all.peers.join(record.peers);
        }
        all.rows.sort_by_key(|(variant, _)| *variant);
        match all.rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(RecordError::Twice(pair[0].0)),
            None => Ok(all),
        }
    }

    /// Writes a compressed record, whole.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let header = std::iter::once(Entry::Header(self.header.clone()));
        let noise = self.noise.iter().map(|(a, b)| Entry::Noise { a: a.clone(), b: b.clone() });
        let peers = (self.peers != Peers::default()).then(|| Entry::Peers(self.peers.clone()));
        let rows = self.rows.iter().map(|(_, row)| Entry::Row(row.clone()));
        let again = self.again.iter().map(|(_, row)| Entry::Again(row.clone()));
        let entries =
            header.chain(noise).chain(peers).chain(rows).chain(again).map(|entry| serde_json::to_string(&entry));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        compress(path, log::text(entries.iter().map(String::as_str)).as_bytes())
    }

    /// How a report refers to it: GPU, driver and date.
    pub fn provenance(&self) -> String {
        let Description { name, driver, .. } = &self.header.device;
        format!("{} on {name}, driver {driver}", self.header.date)
    }
}

/// Compresses a complete log to a record.
pub fn finish(log: &Path, record: &Path) -> Result<(), RecordError> {
    let at = FileError::at(log);
    let bytes = std::fs::read(log).map_err(&at)?;
    compress(record, &bytes)
}

fn compress(record: &Path, lines: &[u8]) -> Result<(), RecordError> {
    let packed = zstd::encode_all(lines, LEVEL).map_err(FileError::at(record))?;
    Ok(file::write(record, &packed)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture;

    /// Two shares of a sweep, the second on another GPU.
    fn shares() -> (Sweep, [Sweep; 2]) {
        let whole = fixture::sweep(40, 0.01, 1);
        let share = |first: usize, uuid: &str| {
            let mut share = whole.clone();
            share.rows = whole.rows.iter().skip(first).step_by(2).cloned().collect();
            share.header.planned = share.rows.len();
            share.header.device.uuid = uuid.to_owned();
            share
        };
        let shares = [share(0, "GPU-0"), share(1, "GPU-1")];
        (whole, shares)
    }

    #[test]
    fn shares_make_the_whole_and_say_which_gpu_measured_what() {
        let (whole, shares) = shares();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("joined.jsonl.zst");
        Sweep::join(shares.to_vec()).unwrap().write(&path).unwrap();
        let joined = Sweep::read(&path).unwrap();
        assert_eq!(joined.header.planned, whole.rows.len());
        for (i, ((variant, row), (expected, original))) in joined.rows.iter().zip(&whole.rows).enumerate() {
            assert_eq!((variant, &row.result), (expected, &original.result));
            assert_eq!(row.gpu.as_deref(), (i % 2 == 1).then_some("GPU-1"));
        }
    }

    #[test]
    fn strangers_are_not_joined() {
        let (_, [one, two]) = shares();
        let error = |other: Sweep| Sweep::join(vec![one.clone(), other]).unwrap_err().to_string();
        assert!(error(one.clone()).starts_with("two records hold "));
        let with = |change: &dyn Fn(&mut Header)| {
            let mut other = two.clone();
            change(&mut other.header);
            error(other)
        };
        assert!(with(&|header| header.device.name = "L4".into()).starts_with("the devices of two records differ: "));
        assert!(with(&|header| header.toolchain = "newer".into()).contains("test, newer"));
        assert!(matches!(Sweep::join(vec![]), Err(RecordError::Nothing)));
    }
}
