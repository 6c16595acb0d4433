//! T4, the format in which Kernel Tuner keeps results: one object per configuration, with its run times in milliseconds.
//!
//! Everything of a row has a place in T4. Of a record's other parts the header goes into the metadata; A/A tests and peers
//! have no place and stay behind. Times come back to within rounding, since microseconds become milliseconds.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use spec::{Family, Variant};

use super::sweep::{Header, Measurement, Row, Sweep, is_known};
use crate::{
    device::{Correctness, Failure, Samples},
    evolve::{settings::Peers, source::Facts},
    measure::statistics,
};

/// Version of T4.
const VERSION: &str = "1.0.0";
/// Name of the parameter that says which kernel; the others are genes.
const FAMILY: &str = "family";
/// Microseconds of a millisecond.
const US_PER_MS: f64 = 1000.0;

/// A file of T4 results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    schema_version: String,
    metadata: Metadata,
    results: Vec<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Metadata {
    timeunit: String,
    /// What the record is of; Kernel Tuner does not know it and does not mind.
    #[serde(default)]
    evoattn: Option<Header>,
}

/// One configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Outcome {
    configuration: Map<String, Value>,
    times: Times,
    invalidity: Invalidity,
    /// 1 if the outputs were right.
    correctness: f64,
    #[serde(default)]
    measurements: Vec<Measured>,
    #[serde(default)]
    objectives: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Times {
    #[serde(default)]
    runtimes: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Invalidity {
    Timeout,
    Compile,
    Runtime,
    Correctness,
    Constraints,
    Correct,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    name: String,
    value: Value,
    #[serde(default)]
    unit: String,
}

/// Why results cannot be written or read. One line each.
#[derive(Debug, thiserror::Error)]
pub enum T4Error {
    /// Another version.
    #[error("T4 of version {0}; this program reads {VERSION}")]
    Version(String),
    /// Times in another unit.
    #[error("times are in {0}; this program reads milliseconds")]
    Unit(String),
    /// Nothing says what was measured.
    #[error("metadata.evoattn is missing, which says what problem was measured on which GPU")]
    NoHeader,
    /// The header is of another version.
    #[error("metadata.evoattn is a header of schema {0}, which this program does not read")]
    Schema(u32),
    /// A result is not one of this program's.
    #[error("result {index}: {reason}")]
    Result {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// Something has no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// A record as T4 results.
pub fn export(sweep: &Sweep) -> Result<Results, T4Error> {
    // What was measured again is a result of the same configuration.
    let outcomes = sweep.rows.iter().chain(&sweep.again).map(|(variant, row)| outcome(variant, row));
    Ok(Results {
        schema_version: VERSION.to_owned(),
        metadata: Metadata { timeunit: "milliseconds".to_owned(), evoattn: Some(sweep.header.clone()) },
        results: outcomes.collect::<Result<_, _>>()?,
    })
}

/// T4 results as a record. They must name families and genes of this program.
pub fn import(results: &Results) -> Result<Sweep, T4Error> {
    if results.schema_version != VERSION {
        return Err(T4Error::Version(results.schema_version.clone()));
    }
    if results.metadata.timeunit != "milliseconds" {
        return Err(T4Error::Unit(results.metadata.timeunit.clone()));
    }
    let header = results.metadata.evoattn.clone().ok_or(T4Error::NoHeader)?;
    if !is_known(header.schema.into()) {
        return Err(T4Error::Schema(header.schema));
    }
    let rows = results.results.iter().enumerate();
    let rows = rows.map(|(index, outcome)| row(outcome).map_err(|reason| T4Error::Result { index, reason }));
    let (mut seen, mut again) = (HashSet::new(), vec![]);
    let mut first = vec![];
    for row in rows {
        let row: (Variant, Row) = row?;
        if seen.insert(row.0) { first.push(row) } else { again.push(row) }
    }
    Ok(Sweep { header, rows: first, again, unknown: 0, noise: vec![], peers: Peers::default() })
}

fn outcome(variant: &Variant, row: &Row) -> Result<Outcome, T4Error> {
    let mut configuration = Map::new();
    configuration.insert(FAMILY.to_owned(), variant.family().name().into());
    configuration.extend(variant.genes().map(|(gene, value)| (gene.name().to_owned(), value.into())));

    let mut measurements = Measurements::default();
    if let Some(sha256) = &row.sha256 {
        measurements.add("sha256", sha256.as_str(), "");
    }
    if let Some(gpu) = &row.gpu {
        measurements.add("gpu", gpu.as_str(), "");
    }
    measurements.add_fields("facts", row.facts.as_ref())?;
    let mut times = Times::default();
    match &row.result {
        Ok(Measurement { correctness, samples, reference_us }) => {
            times.runtimes = in_ms(&samples.hot_us);
            measurements.add("time", statistics::median(&times.runtimes), "ms");
            measurements.add("cold_times", in_ms(&samples.cold_us), "ms");
            measurements.add("reference_time", reference_us / US_PER_MS, "ms");
            measurements.add("throttled", samples.throttled, "");
            measurements.add_fields("correctness", Some(correctness))?;
        }
        // T4 has fewer words than there are failures.
        Err(failure) => measurements.add("failure", serde_json::to_string(failure)?, ""),
    }
    Ok(Outcome {
        configuration,
        times,
        invalidity: row.result.as_ref().map_or_else(invalidity, |_| Invalidity::Correct),
        correctness: f64::from(u8::from(row.result.is_ok())),
        measurements: measurements.0,
        objectives: vec!["time".to_owned()],
    })
}

fn row(outcome: &Outcome) -> Result<(Variant, Row), String> {
    let variant = variant(&outcome.configuration)?;
    let mut measurements = BTreeMap::new();
    for Measured { name, value, .. } in &outcome.measurements {
        measurements.insert(name.as_str(), value);
    }
    let facts: Option<Facts> = fields("facts", &measurements)?;
    let result = if outcome.invalidity == Invalidity::Correct {
        if outcome.correctness < 1.0 {
            return Err(format!("it is said to be correct, with a correctness of {}", outcome.correctness));
        }
        if outcome.times.runtimes.is_empty() {
            return Err("it is correct but has no runtimes".to_owned());
        }
        let correctness: Option<Correctness> = fields("correctness", &measurements)?;
        Ok(Measurement {
            correctness: correctness.ok_or("it is said to be correct, but not on how many cases")?,
            samples: Samples {
                hot_us: in_us(&outcome.times.runtimes),
                cold_us: in_us(&measured::<Vec<f64>>("cold_times", &measurements)?.unwrap_or_default()),
                throttled: measured("throttled", &measurements)?.unwrap_or(0),
            },
            reference_us: measured::<f64>("reference_time", &measurements)?
                .ok_or("it has no reference_time, so times of other hours cannot be compared with it")?
                * US_PER_MS,
        })
    } else {
        Err(match measured::<String>("failure", &measurements)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| format!("failure: {error}"))?,
            None => failure(outcome.invalidity),
        })
    };
    let (sha256, gpu) = (measured("sha256", &measurements)?, measured("gpu", &measurements)?);
    Ok((variant, Row { variant: variant.to_string(), sha256, facts, result, gpu }))
}

fn variant(configuration: &Map<String, Value>) -> Result<Variant, String> {
    let name = configuration.get(FAMILY).and_then(Value::as_str).unwrap_or_default();
    let family = Family::ALL.into_iter().find(|family| family.name() == name);
    let family = family.ok_or_else(|| format!("family is `{name}`, which is none of this program's"))?;
    let genes = family.domains().iter().map(|domain| {
        let gene = domain.gene.name();
        let value = configuration.get(gene).ok_or_else(|| format!("{gene} is missing"))?;
        Ok(format!("{gene}={value}"))
    });
    let genes = genes.collect::<Result<Vec<_>, String>>()?.join(",");
    if configuration.len() != family.domains().len() + 1 {
        return Err(format!("it has parameters that the family {family} does not have"));
    }
    format!("{family}:{genes}").parse().map_err(|error| format!("{family}:{genes}: {error}"))
}

fn invalidity(failure: &Failure) -> Invalidity {
    match failure {
        Failure::Illegal(_) => Invalidity::Constraints,
        Failure::Build(_) | Failure::Gate(_) => Invalidity::Compile,
        Failure::Wrong { .. } | Failure::Impossible { .. } => Invalidity::Correctness,
        Failure::Launch(_) | Failure::Fault(_) | Failure::Unrecorded | Failure::Device(_) => Invalidity::Runtime,
        Failure::Hang { .. } => Invalidity::Timeout,
    }
}

/// The failure behind a word of T4, for results that another program wrote.
fn failure(invalidity: Invalidity) -> Failure {
    const T4: &str = "as T4 has it";
    match invalidity {
        Invalidity::Timeout => Failure::Hang { seconds: 0.0 },
        Invalidity::Compile => Failure::Build(T4.to_owned()),
        Invalidity::Runtime | Invalidity::Correct => Failure::Launch(T4.to_owned()),
        Invalidity::Correctness => Failure::Wrong { case: "some".to_owned(), reason: T4.to_owned() },
        Invalidity::Constraints => Failure::Illegal(T4.to_owned()),
    }
}

#[derive(Default)]
struct Measurements(Vec<Measured>);

impl Measurements {
    fn add(&mut self, name: &str, value: impl Into<Value>, unit: &str) {
        self.0.push(Measured { name: name.to_owned(), value: value.into(), unit: unit.to_owned() });
    }

    /// One measurement per field, named `prefix.field`.
    fn add_fields(&mut self, prefix: &str, fields: Option<&impl Serialize>) -> Result<(), T4Error> {
        if let Some(Value::Object(fields)) = fields.map(serde_json::to_value).transpose()? {
            for (field, value) in fields {
                self.add(&format!("{prefix}.{field}"), value, "");
            }
        }
        Ok(())
    }
}

fn measured<T: DeserializeOwned>(name: &str, measurements: &BTreeMap<&str, &Value>) -> Result<Option<T>, String> {
    let value = measurements.get(name).map(|value| T::deserialize(*value));
    value.transpose().map_err(|error| format!("{name}: {error}"))
}

/// What [`Measurements::add_fields`] wrote; `None` if it wrote nothing.
fn fields<T: DeserializeOwned>(prefix: &str, measurements: &BTreeMap<&str, &Value>) -> Result<Option<T>, String> {
    let field = |(name, value): (&&str, &&Value)| {
        let field = name.strip_prefix(prefix)?.strip_prefix('.')?;
        Some((field.to_owned(), (*value).clone()))
    };
    let fields: Map<String, Value> = measurements.iter().filter_map(field).collect();
    if fields.is_empty() {
        return Ok(None);
    }
    serde_json::from_value(Value::Object(fields)).map(Some).map_err(|error| format!("{prefix}: {error}"))
}

fn in_ms(us: &[f64]) -> Vec<f64> {
    us.iter().map(|us| us / US_PER_MS).collect()
}

fn in_us(ms: &[f64]) -> Vec<f64> {
    ms.iter().map(|ms| ms * US_PER_MS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture;

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs())
    }

    #[test]
    fn a_record_comes_back_with_all_that_t4_holds() {
        let mut sweep = fixture::sweep(80, 0.01, 3);
        sweep.again = sweep.rows.iter().filter(|(_, row)| row.result.is_ok()).take(3).cloned().collect();
        let text = serde_json::to_string(&export(&sweep).unwrap()).unwrap();
        let back = import(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(back.header, sweep.header);
        assert_eq!((back.rows.len(), back.again.len()), (sweep.rows.len(), 3));
        let mut failures = 0;
        for ((variant, row), (expected, original)) in back.rows.iter().zip(&sweep.rows) {
            assert_eq!((variant, &row.variant), (expected, &original.variant));
            assert_eq!((&row.sha256, &row.facts), (&original.sha256, &original.facts));
            match (&row.result, &original.result) {
                (Ok(of), Ok(as_measured)) => {
                    assert_eq!(of.correctness, as_measured.correctness);
                    assert!(close(&of.samples.hot_us, &as_measured.samples.hot_us));
                    assert!(close(&of.samples.cold_us, &as_measured.samples.cold_us));
                    assert!(close(&[of.reference_us], &[as_measured.reference_us]));
                }
                (of, as_recorded) => {
                    failures += 1;
                    assert_eq!(of.as_ref().err(), as_recorded.as_ref().err());
                }
            }
        }
        assert!(failures > 0);
    }

    #[test]
    fn results_that_are_not_ours_are_refused_with_the_reason() {
        let good = serde_json::to_value(export(&fixture::sweep(5, 0.01, 3)).unwrap()).unwrap();
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut changed = good.clone();
            change(&mut changed);
            import(&serde_json::from_value(changed).unwrap()).unwrap_err().to_string()
        };
        let correct = good["results"].as_array().unwrap().iter().position(|of| of["invalidity"] == "correct").unwrap();
        let with = |change: &dyn Fn(&mut Value)| refused(&|all| change(&mut all["results"][correct]));
        let at = format!("result {correct}: ");
        assert_eq!(
            refused(&|all| all["schema_version"] = "2.0.0".into()),
            "T4 of version 2.0.0; this program reads 1.0.0"
        );
        assert!(refused(&|all| all["metadata"]["timeunit"] = "seconds".into()).starts_with("times are in seconds"));
        assert!(refused(&|all| all["metadata"]["evoattn"] = Value::Null).starts_with("metadata.evoattn is missing"));
        assert!(refused(&|all| all["metadata"]["evoattn"]["schema"] = 9.into()).contains("schema 9"));
        assert!(
            with(&|one| one["configuration"]["family"] = "gemm".into()).starts_with(&format!("{at}family is `gemm`"))
        );
        assert!(with(&|one| one["configuration"]["tile_q"] = 17.into()).contains("tile_q=17"));
        assert!(with(&|one| one["configuration"]["block_size_x"] = 1.into()).contains("parameters that the family"));
        assert_eq!(
            with(&|one| one["correctness"] = 0.into()),
            format!("{at}it is said to be correct, with a correctness of 0")
        );
        assert_eq!(
            with(&|one| one["times"]["runtimes"] = Value::Array(vec![])),
            format!("{at}it is correct but has no runtimes")
        );
    }
}
