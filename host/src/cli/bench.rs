//! `host bench`: what the recorded variants, or given ones, take on suites of shapes.

mod row;
mod suites;
pub(super) mod table;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use builder::{Library, PtxArtifact};
use serde_json::json;
use spec::{Problem, Variant, legal};

use self::{
    row::{Measured, Row},
    suites::{Dtypes, Suite},
};
use super::place::workers;
use crate::{
    cases::{Case, Distribution},
    device::{Code, Correctness, Device, Failure, Pace, Samples, Subject, TimingPlan},
    dispatch::{self, Chosen, Dispatch, Entry},
    measure::statistics::median,
};

/// How long the device may take to answer: inputs of the largest shapes take the host most of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seed of inputs and of the order of variants.
const SEED: u64 = 0;

/// Arguments of `host bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shapes; several are separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Suite::Seed])]
    suite: Vec<Suite>,
    /// Which element types.
    #[arg(long, value_enum, default_value_t = Dtypes::F16)]
    dtype: Dtypes,
    /// These shapes instead of a suite, for example b1-h8-s512-d64-f16; may be given several times.
    #[arg(long, value_parser = super::problem, conflicts_with_all = ["suite", "dtype"])]
    problem: Vec<Problem>,
    /// Time these variants on every shape they fit, and print the fastest: a file with one per line, or a list separated by
    /// semicolons.
    #[arg(long, value_name = "FILE|LIST")]
    variants: Option<String>,
    /// Dispatch records to take variants from; those shipped for the GPU unless named.
    #[arg(long, value_name = "FILE", conflicts_with = "variants")]
    dispatch: Option<PathBuf>,
    /// Keep the fastest variant of each shape in these dispatch records, for example
    /// records/dispatch/nvidia-h200.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A store of compiled kernels that was filled elsewhere.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Samples per variant.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Number of the GPU.
    #[arg(long, default_value_t = 0)]
    gpu: u32,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    ensure!(args.rounds >= 1, "--rounds is 0; at least 1 is needed");
    let variants = args.variants.as_deref().map(variants).transpose()?;
    let problems = match args.problem.as_slice() {
        [] => of_suites(&args.suite, args.dtype),
        problems => problems.to_vec(),
    };
    let library = Library::open()?;
    let library = match &args.store {
        Some(folder) => library.with_store(folder)?,
        None => library,
    };
    let device = workers::gpu(args.gpu, PATIENCE)?;
    let gpu = device.description().name.clone();
    let choice = match (variants, &args.dispatch) {
        (Some(variants), _) => Variants::Given(variants),
        (None, Some(file)) => Variants::Chosen(Some(Dispatch::read(file)?)),
        (None, None) => Variants::Chosen(Dispatch::shipped(library.project().root(), &gpu)?),
    };
    let mut records = match &args.record {
        Some(file) => Some((file, records(file, &gpu)?)),
        None => None,
    };
    println!("{}", json!({ "gpu": gpu, "driver": device.description().driver }));

    let mut bench = Bench { device: Box::new(device), library, variants: choice, rounds: args.rounds };
    for problem in problems {
        match bench.fastest(&problem) {
            Ok(best) => {
                println!("{}", serde_json::to_string(&best.row(&problem))?);
                if let Some((file, records)) = &mut records {
                    records.put(best.entry(&problem, bench.device.as_ref()));
                    records.write(file)?;
                }
            }
            Err(error) => println!("{}", serde_json::to_string(&Row::failed(&problem, format!("{error:#}")))?),
        }
    }
    Ok(())
}

fn of_suites(suites: &[Suite], dtypes: Dtypes) -> Vec<Problem> {
    let of = |dtype| suites.iter().flat_map(move |suite| suites::problems(*suite, dtype));
    dtypes.dtypes().iter().copied().flat_map(of).collect()
}

/// The variants in a file, one per line, or in a list.
fn variants(text: &str) -> Result<Vec<Variant>> {
    let path = Path::new(text);
    let (content, separator) = if path.is_file() {
        (std::fs::read_to_string(path).with_context(|| path.display().to_string())?, '\n')
    } else {
        (text.to_owned(), ';')
    };
    let names = content.split(separator).map(str::trim).filter(|name| !name.is_empty());
    let variant = |name: &str| name.parse().with_context(|| format!("--variants: `{name}` is no file and no variant"));
    let variants = names.map(variant).collect::<Result<Vec<_>>>()?;
    ensure!(!variants.is_empty(), "--variants names no variant");
    Ok(variants)
}

/// The records to add to: those in the file, if it is there.
fn records(file: &Path, gpu: &str) -> Result<Dispatch> {
    if !file.exists() {
        return Ok(Dispatch::new(gpu));
    }
    let records = Dispatch::read(file)?;
    ensure!(records.gpu() == gpu, "{}: the records are of {}, this is {gpu}", file.display(), records.gpu());
    Ok(records)
}

/// Where variants come from.
enum Variants {
    /// All that fit.
    Given(Vec<Variant>),
    /// The recorded one, or a default.
    Chosen(Option<Dispatch>),
}

struct Bench {
    device: Box<dyn Device>,
    library: Library,
    variants: Variants,
    rounds: u32,
}

/// The fastest variant on a shape.
struct Best {
    variant: Variant,
    sha256: String,
    measured: Measured,
}

impl Best {
    fn row(&self, problem: &Problem) -> Row {
        Row::measured(problem, self.variant.to_string(), self.measured)
    }

    fn entry(&self, problem: &Problem, device: &dyn Device) -> Entry {
        Entry {
            problem: *problem,
            variant: self.variant.to_string(),
            sha256: self.sha256.clone(),
            hot_us: self.measured.hot_us,
            driver: device.description().driver.clone(),
            record: format!("host bench, {}", jiff::Timestamp::now().strftime("%Y-%m-%d")),
        }
    }
}

impl Bench {
    /// Checks the candidates, times those that are right in turns, and tells about each on standard error.
    fn fastest(&mut self, problem: &Problem) -> Result<Best> {
        let case = Case::new(problem.to_string(), *problem, Distribution::Normal, SEED);
        let (mut right, mut errors) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        for (artifact, subject) in self.candidates(problem)? {
            match self.device.check(&subject, std::slice::from_ref(&case)) {
                Ok(Correctness { max_abs_error, .. }) => {
                    right.push((artifact, subject));
                    errors.push(max_abs_error);
                }
                Err(failure) => {
                    eprintln!("  refused {}: {failure}", subject.variant);
                    refused.push(failure.to_string());
                }
            }
        }
        ensure!(!right.is_empty(), "{}", refused.join("; "));
        let subjects: Vec<Subject> = right.iter().map(|(_, subject)| subject.clone()).collect();
        // The times are set beside those of baselines.
        let plan = TimingPlan { rounds: self.rounds, cold: true, seed: SEED, pace: Pace::Burst };
        let samples = self.device.time(&subjects, &plan)?;
        let timed = right.into_iter().zip(errors).zip(samples).map(|(((artifact, subject), max_err), samples)| {
            let Samples { hot_us, cold_us, .. } = samples;
            let measured = Measured { hot_us: median(&hot_us), cold_us: median(&cold_us), max_err };
            eprintln!("  {:10.2} us hot {:10.2} us cold  {}", measured.hot_us, measured.cold_us, subject.variant);
            Best { variant: subject.variant, sha256: artifact.sha256, measured }
        });
        let best = timed.min_by(|a, b| a.measured.hot_us.total_cmp(&b.measured.hot_us));
        best.context("the device timed nothing")
    }

    /// What is to be timed on a shape; at least one.
    fn candidates(&self, problem: &Problem) -> Result<Vec<(PtxArtifact, Subject)>> {
        let limits = self.device.description().limits;
        let variants = match &self.variants {
            Variants::Chosen(dispatch) => {
                let gpu = &self.device.description().name;
                let Chosen { variant, artifact, choice } =
                    dispatch::choose(&self.library, gpu, &limits, dispatch.as_ref(), problem)?;
                eprintln!("{problem}: {choice}");
                vec![(variant, Ok(artifact))]
            }
            Variants::Given(variants) => {
                let fit = variants.iter().copied().filter(|variant| legal(problem, variant, &limits).is_ok());
                let fit: Vec<Variant> = fit.collect();
                eprintln!("{problem}: {} of {} variants fit", fit.len(), variants.len());
                let kernels: Vec<_> = fit.iter().map(|variant| variant.kernel(problem)).collect();
                fit.into_iter().zip(self.library.ptx(&kernels, limits.sm)).collect()
            }
        };
        let mut candidates = Vec::new();
        for (variant, artifact) in variants {
            match artifact {
                Ok(artifact) => {
                    let geometry = legal(problem, &variant, &limits)?;
                    let code = Code::Ptx { sha256: artifact.sha256.clone(), path: artifact.path.clone() };
                    candidates.push((artifact, Subject { problem: *problem, variant, geometry, code }));
                }
                Err(error) => eprintln!("  refused {variant}: {}", Failure::Build(error.to_string())),
            }
        }
        ensure!(!candidates.is_empty(), "none of the variants fits, or none has code at hand");
        Ok(candidates)
    }
}

#[cfg(test)]
mod tests {
    use spec::Family;

    use super::*;

    #[test]
    fn variants_come_from_a_list_or_a_file() {
        let two = [Family::Mma, Family::Wgmma].map(Variant::smallest);
        let names = two.map(|variant| variant.to_string());
        assert_eq!(variants(&names.join(" ; ")).unwrap(), two);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("variants");
        std::fs::write(&file, format!("{}\n\n{}\n", names[0], names[1])).unwrap();
        assert_eq!(variants(&file.display().to_string()).unwrap(), two);
        let error = format!("{:#}", variants("mma:tile_q=64").unwrap_err());
        assert!(error.starts_with("--variants: `mma:tile_q=64` is no file and no variant: "), "{error}");
        assert_eq!(variants(";").unwrap_err().to_string(), "--variants names no variant");
    }

    #[test]
    fn records_of_another_gpu_are_not_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("l4.json");
        assert_eq!(records(&file, "NVIDIA L4").unwrap(), Dispatch::new("NVIDIA L4"));
        Dispatch::new("NVIDIA L4").write(&file).unwrap();
        let error = records(&file, "NVIDIA H100").unwrap_err().to_string();
        assert!(error.ends_with("the records are of NVIDIA L4, this is NVIDIA H100"), "{error}");
    }
}
