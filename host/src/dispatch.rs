//! Which variant to take for a problem: the one that a record says was the fastest here, else a default.
//!
//! There is one file of records per GPU model, `records/dispatch/<gpu>.json`. A record is believed only where it was measured
//! on this GPU model and its very code is at hand: a variant that compiles to other code now was not measured.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use builder::{BuildError, PtxArtifact};
use serde::{Deserialize, Serialize};
use spec::{
    DeviceLimits, Family, Features, Illegal, Pages, ParseError, Problem, Strides, TensorStrides, Variant, defaults,
    legal,
};

use crate::attention::{AttentionError, Kernels, check_problem, geometry};
use crate::record::file::{self, FileError};

/// Version of the records' format.
const SCHEMA: u32 = 1;
/// Where the shipped records are, within the project.
const SHIPPED: &str = "records/dispatch";

/// The records of one GPU model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    schema: u32,
    /// The GPU's name as the driver gives it.
    gpu: String,
    /// In the order of the problems' names, one for each.
    entries: Vec<Entry>,
}

/// What was the fastest for one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What was asked.
    pub problem: Problem,
    /// The variant, as text: records outlive changes of the space.
    pub variant: String,
    /// Hash of its code.
    pub sha256: String,
    /// Median over warm caches, in microseconds.
    pub hot_us: f64,
    /// Version of the driver.
    pub driver: String,
    /// Where the measurement is kept, or what took it and when.
    pub record: String,
}

/// Why a file of records cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// It holds something else.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Dispatch {
    /// No records yet of the GPU with this name.
    pub fn new(gpu: &str) -> Self {
        Self { schema: SCHEMA, gpu: gpu.to_owned(), entries: Vec::new() }
    }

    /// The records in a file.
    pub fn read(path: &Path) -> Result<Self, DispatchError> {
        let text = fs::read_to_string(path).map_err(|source| DispatchError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// The records in a text; errors name it by `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, DispatchError> {
        let malformed = |reason| DispatchError::Malformed { path: path.to_owned(), reason };
        let dispatch: Self = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if dispatch.schema != SCHEMA {
            return Err(malformed(format!("its schema is {}; {SCHEMA} is understood", dispatch.schema)));
        }
        for (i, Entry { problem, hot_us, .. }) in dispatch.entries.iter().enumerate() {
            if !hot_us.is_finite() || *hot_us <= 0.0 {
                return Err(malformed(format!("{problem}: hot_us is {hot_us}; it must be above 0")));
            }
            if dispatch.entries[..i].iter().any(|other| other.problem == *problem) {
                return Err(malformed(format!("{problem} is there twice")));
            }
        }
        Ok(dispatch)
    }

    /// The records in a file for the GPU with this name, or why none of them is followed.
    pub fn load(path: &Path, gpu: &str) -> Result<Self, Refusal> {
        let dispatch = Self::read(path).map_err(|error| Refusal::Unreadable(error.to_string()))?;
        dispatch.check_gpu(gpu)?;
        Ok(dispatch)
    }

    fn check_gpu(&self, here: &str) -> Result<(), Refusal> {
        if self.gpu == here {
            return Ok(());
        }
        Err(Refusal::OtherGpu { recorded: self.gpu.clone(), here: here.to_owned() })
    }

    /// The records of the GPU with this name in the project at `root`; `None` if there are none.
    pub fn shipped(root: &Path, gpu: &str) -> Result<Option<Self>, DispatchError> {
        let path = root.join(SHIPPED).join(file_name(gpu));
        if path.is_file() { Self::read(&path).map(Some) } else { Ok(None) }
    }

    /// Writes the records whole.
    pub fn write(&self, path: &Path) -> Result<(), DispatchError> {
        let malformed = |error: serde_json::Error| {
            let reason = error.to_string();
            DispatchError::Malformed { path: path.to_owned(), reason }
        };
        let text = serde_json::to_string_pretty(self).map_err(malformed)? + "\n";
        Ok(file::write(path, text.as_bytes())?)
    }

    /// The GPU's name.
    pub fn gpu(&self) -> &str {
        &self.gpu
    }

    /// The records, in the order of the problems' names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The record of a problem, or of one that takes the same work: with another scale, or other strides where nobody steps.
    pub fn find(&self, problem: &Problem) -> Option<&Entry> {
        self.entries.iter().find(|entry| work(&entry.problem) == work(problem))
    }

    /// Puts a record in the place of what was known of its problem.
    pub fn put(&mut self, entry: Entry) {
        self.entries.retain(|known| known.problem != entry.problem);
        self.entries.push(entry);
        self.entries.sort_by_cached_key(|entry| entry.problem.to_string());
    }
}

/// A problem without what changes its results or names, but not the work.
fn work(problem: &Problem) -> Problem {
    let mut work = Problem { scale: None, ..*problem };
    let Problem { batch, heads_q, heads_kv, seqlen_q, seqlen_kv, .. } = work;
    let TensorStrides { q, k, v, o } = &mut work.strides;
    for (strides, heads, seqlen) in
        [(q, heads_q, seqlen_q), (k, heads_kv, seqlen_kv), (v, heads_kv, seqlen_kv), (o, heads_q, seqlen_q)]
    {
        let Strides { batch: b, seq, head } = strides;
        // Tensor libraries leave anything as the stride of a dimension of one element.
        for (stride, size) in [(b, batch), (seq, seqlen), (head, heads)] {
            *stride = if size == 1 { 0 } else { *stride };
        }
    }
    work
}

/// `NVIDIA H100 80GB HBM3` has its records in `nvidia-h100-80gb-hbm3.json`.
pub(crate) fn file_name(gpu: &str) -> String {
    let words = gpu.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase() + ".json"
}

/// Why a plan's variant was taken.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each plan")]
pub enum Choice {
    /// The caller named it.
    Given,
    /// A record names it.
    Recorded(Entry),
    /// It is that of one batch entry, whatever the batch, and taken for it so.
    ForAnyBatch(Box<Self>),
    /// It is a default, since no record could be followed.
    Default(Refusal),
    /// It is a default too, but not the one that should be the fastest, whose code cannot be had.
    Fallback {
        /// Why no record was followed.
        refusal: Refusal,
        /// The variant that should have been.
        missing: Box<Variant>,
        /// Why its code cannot be had.
        reason: BuildError,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("named by the caller"),
            Self::ForAnyBatch(choice) => write!(f, "for any batch, {choice}"),
            Self::Recorded(Entry { hot_us, driver, record, .. }) => {
                write!(f, "recorded with {hot_us:.2} us, driver {driver}, {record}")
            }
            Self::Default(refusal) => write!(f, "a default: {refusal}"),
            Self::Fallback { refusal, missing, reason } => {
                write!(f, "a fallback for {missing}, as {reason}: {refusal}")
            }
        }
    }
}

/// Why no record is followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are none.
    #[error("no dispatch records were given")]
    NoRecords,
    /// Their file cannot be used.
    #[error("the dispatch records cannot be used: {0}")]
    Unreadable(String),
    /// They are of another GPU.
    #[error("the dispatch records are of {recorded}, this is {here}")]
    OtherGpu {
        /// Whose they are.
        recorded: String,
        /// Which it is.
        here: String,
    },
    /// None is of the problem.
    #[error("there is no dispatch record of the problem")]
    NotRecorded,
    /// Its variant is none of this program's.
    #[error("the recorded variant {variant} is unknown: {reason}")]
    Unknown {
        /// The variant.
        variant: String,
        /// What is wrong with it.
        reason: ParseError,
    },
    /// Its variant does not fit.
    #[error("the recorded variant {variant} does not fit: {reason}")]
    Illegal {
        /// The variant.
        variant: String,
        /// Why not.
        reason: Illegal,
    },
    /// Its code cannot be had.
    #[error(transparent)]
    Code(BuildError),
    /// Its code is another one now.
    #[error("the record of {variant} is stale: its code was {recorded}, it is {here}")]
    Stale {
        /// The variant.
        variant: String,
        /// Hash of the code that was measured.
        recorded: String,
        /// Hash of the code at hand.
        here: String,
    },
}

/// A variant with its code.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen<A = PtxArtifact> {
    /// The variant; it is legal.
    pub variant: Variant,
    /// Its code, as the source of kernels knows it.
    pub artifact: A,
    /// Why it was taken.
    pub choice: Choice,
}

/// The variant for a problem on the GPU with this name and these limits: the recorded one if its record holds, else the
/// first of [`defaults`] whose code can be had.
pub fn choose<K: Kernels>(
    kernels: &K,
    gpu: &str,
    limits: &DeviceLimits,
    dispatch: Option<&Dispatch>,
    problem: &Problem,
) -> Result<Chosen<K::Artifact>, AttentionError> {
    check_problem(limits, problem)?;
    match dispatch.ok_or(Refusal::NoRecords).and_then(|dispatch| follow(kernels, gpu, limits, dispatch, problem)) {
        Ok(chosen) => Ok(chosen),
        Err(refusal) => default(kernels, limits, problem, refusal),
    }
}

/// Like [`choose`], as if there were one batch entry: the variant is the same for every batch, and with it the bits of a row.
///
/// How many entries are packed together, and over how many pages, does not count either; `seqlen_q` and `seqlen_kv`, the most that
/// an entry may have, do.
///
/// # Errors
///
/// [`AttentionError::Illegal`] also if the strides between batch entries are none that this variant can take: another one would
/// give other bits.
pub fn choose_for_any_batch<K: Kernels>(
    kernels: &K,
    gpu: &str,
    limits: &DeviceLimits,
    dispatch: Option<&Dispatch>,
    problem: &Problem,
) -> Result<Chosen<K::Artifact>, AttentionError> {
    check_problem(limits, problem)?;
    let chosen = choose(kernels, gpu, limits, dispatch, &of_one_entry(problem))?;
    geometry(limits, problem, &chosen.variant)?;
    Ok(Chosen { choice: Choice::ForAnyBatch(Box::new(chosen.choice)), ..chosen })
}

/// What is asked of one batch entry: the problem without all that another batch could change.
fn of_one_entry(problem: &Problem) -> Problem {
    let Features { packed_q, packed_kv, pages, .. } = problem.features;
    // As much as an entry may have, so that the choice does not depend on what the others have.
    let features = Features {
        packed_q: packed_q.map(|_| problem.seqlen_q),
        packed_kv: packed_kv.map(|_| problem.seqlen_kv),
        pages: pages.map(|pages| Pages { count: pages.columns, ..pages }),
        ..problem.features
    };
    Problem { batch: 1, features, ..*problem }
}

/// Like [`choose`], by the records in a file. A file that cannot be used leaves the default too.
pub fn choose_by_file<K: Kernels>(
    kernels: &K,
    gpu: &str,
    limits: &DeviceLimits,
    path: &Path,
    problem: &Problem,
) -> Result<Chosen<K::Artifact>, AttentionError> {
    check_problem(limits, problem)?;
    match Dispatch::load(path, gpu) {
        Ok(dispatch) => choose(kernels, gpu, limits, Some(&dispatch), problem),
        Err(refusal) => default(kernels, limits, problem, refusal),
    }
}

/// The recorded variant for a problem, or why its record does not hold on this GPU and with this code.
pub(crate) fn follow<K: Kernels>(
    kernels: &K,
    gpu: &str,
    limits: &DeviceLimits,
    dispatch: &Dispatch,
    problem: &Problem,
) -> Result<Chosen<K::Artifact>, Refusal> {
    dispatch.check_gpu(gpu)?;
    let entry = dispatch.find(problem).ok_or(Refusal::NotRecorded)?;
    let name = || entry.variant.clone();
    let variant = entry.variant.parse().map_err(|reason| Refusal::Unknown { variant: name(), reason })?;
    legal(problem, &variant, limits).map_err(|reason| Refusal::Illegal { variant: name(), reason })?;
    let artifact = kernels.find(&variant.kernel(problem), limits.sm).map_err(Refusal::Code)?;
    let here = kernels.sha256(&artifact);
    if here != entry.sha256 {
        return Err(Refusal::Stale { variant: name(), recorded: entry.sha256.clone(), here: here.to_owned() });
    }
    Ok(Chosen { variant, artifact, choice: Choice::Recorded(entry.clone()) })
}

fn default<K: Kernels>(
    kernels: &K,
    limits: &DeviceLimits,
    problem: &Problem,
    refusal: Refusal,
) -> Result<Chosen<K::Artifact>, AttentionError> {
    let portable = Variant::smallest(Family::most_portable(problem.dtype));
    let mut missing = None;
    let chosen = |variant, artifact, missing: Option<(Variant, BuildError)>| {
        let choice = match missing {
            None => Choice::Default(refusal),
            Some((missing, reason)) => Choice::Fallback { refusal, missing: Box::new(missing), reason },
        };
        Ok(Chosen { variant, artifact, choice })
    };
    // The last may have other launch genes.
    let code = portable.kernel(problem);
    for variant in defaults(problem, limits).filter(|variant| variant.kernel(problem) != code) {
        match kernels.find(&variant.kernel(problem), limits.sm) {
            Ok(artifact) => return chosen(variant, artifact, missing),
            // The first is the one to report: it is of the variant that should have been.
            Err(reason) => missing = missing.or(Some((variant, reason))),
        }
    }
    match (kernels.find(&code, limits.sm), missing) {
        (Ok(artifact), missing) => chosen(portable, artifact, missing),
        (Err(_), Some((_, reason))) | (Err(reason), None) => Err(reason.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use builder::{Catalog, Library, Project, Shipped, ToolchainVersion};
    use tempfile::TempDir;

    use super::*;

    pub(crate) const LIMITS: DeviceLimits = DeviceLimits::H100;
    pub(crate) const GPU: &str = "NVIDIA H100 80GB HBM3";

    /// A project without sources whose catalog holds these variants of the seed shape.
    pub(crate) fn library(variants: &[Variant]) -> (Library, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let shipped = |variant: &Variant| {
            let kernel = variant.kernel(&Problem::SEED);
            Shipped { kernel, sm: LIMITS.sm, text: kernel.to_string(), facts: None }
        };
        let toolchain = ToolchainVersion { rustc: "rustc 1.0".into(), packages: vec![] };
        let modules = variants.iter().map(shipped).collect();
        Catalog::write(&folder.path().join("catalog"), "sources", "recipe", &toolchain, modules).unwrap();
        let project = Project::at(folder.path()).unwrap();
        let none = BuildError::NoRoot { start: folder.path().to_owned() };
        (Library::of(project, Err(none), None).unwrap(), folder)
    }

    pub(crate) fn two() -> [Variant; 2] {
        let mut all = defaults(&Problem::SEED, &LIMITS);
        let mut next = || all.next().unwrap();
        [next(), next()]
    }

    pub(crate) fn dispatch(variant: &Variant) -> Dispatch {
        let mut dispatch = Dispatch::new(GPU);
        dispatch.put(Entry {
            problem: Problem::SEED,
            variant: variant.to_string(),
            sha256: builder::sha256(variant.kernel(&Problem::SEED).to_string().as_bytes()),
            hot_us: 4.5,
            driver: "580.1".into(),
            record: "a test".into(),
        });
        dispatch
    }

    #[test]
    fn a_record_is_followed_where_it_holds() {
        let [first, second] = two();
        let (library, _folder) = library(&[first, second]);
        let dispatch = dispatch(&second);
        let chosen = choose(&library, GPU, &LIMITS, Some(&dispatch), &Problem::SEED).unwrap();
        assert_eq!(chosen.variant, second);
        assert_eq!(chosen.choice.to_string(), "recorded with 4.50 us, driver 580.1, a test");
    }

    #[test]
    fn scale_and_strides_of_one_element_do_not_matter() {
        let dispatch = dispatch(&two()[0]);
        let mut same = Problem { scale: Some(0.5), ..Problem::SEED };
        (same.strides.q.batch, same.strides.v.batch) = (7, -1);
        assert_eq!(dispatch.find(&same), dispatch.entries.first());
        same.strides.q.seq += 8;
        assert_eq!(dispatch.find(&same), None);
    }

    #[test]
    fn a_record_that_does_not_hold_leaves_the_default_and_says_why() {
        let [first, second] = two();
        let (library, _folder) = library(&[first, second]);
        let refusal = |dispatch: &Dispatch, gpu: &str| {
            let chosen = choose(&library, gpu, &LIMITS, Some(dispatch), &Problem::SEED).unwrap();
            assert_eq!(chosen.variant, first);
            let Choice::Default(refusal) = chosen.choice else { panic!("{}", chosen.choice) };
            refusal
        };
        let good = dispatch(&second);
        assert!(matches!(refusal(&good, "NVIDIA L4"), Refusal::OtherGpu { .. }));
        assert_eq!(refusal(&Dispatch::new(GPU), GPU), Refusal::NotRecorded);
        let with = |change: &dyn Fn(&mut Entry)| {
            let mut dispatch = good.clone();
            change(&mut dispatch.entries[0]);
            refusal(&dispatch, GPU)
        };
        assert!(matches!(with(&|entry| entry.sha256 = "00".into()), Refusal::Stale { .. }));
        assert!(matches!(with(&|entry| entry.variant = "magic:x=1".into()), Refusal::Unknown { .. }));
        let huge = second.to_string().replace("stages=2", "stages=4");
        assert!(matches!(with(&|entry| entry.variant.clone_from(&huge)), Refusal::Illegal { .. }));
        let absent = second.to_string().replace("stages=2", "stages=1").replace("tile_kv=64", "tile_kv=32");
        assert!(matches!(with(&|entry| entry.variant.clone_from(&absent)), Refusal::Code(_)));
    }

    #[test]
    fn one_variant_serves_every_batch() {
        let [first, second] = two();
        let (library, _folder) = library(&[first, second]);
        let choose = |dispatch: Option<&Dispatch>, problem: &Problem| {
            choose_for_any_batch(&library, GPU, &LIMITS, dispatch, problem)
        };
        let many = Problem { batch: 1000, ..Problem::SEED };
        assert_ne!(defaults(&many, &LIMITS).next(), Some(first));
        for problem in [Problem::SEED, many, many.in_bhsd()] {
            assert_eq!(choose(None, &problem).unwrap().variant, first);
            // The record is of one batch entry in another layout than the last.
            let chosen = choose(Some(&dispatch(&second)), &problem).unwrap();
            assert_eq!(chosen.variant, if problem == many.in_bhsd() { first } else { second });
            assert!(chosen.choice.to_string().starts_with("for any batch, "), "{}", chosen.choice);
        }
        let mut odd = Problem { batch: 2, ..Problem::SEED };
        odd.strides.k.batch += 1;
        assert!(super::choose(&library, GPU, &LIMITS, None, &odd).is_err(), "only the two are there");
        let refusal = choose(None, &odd).unwrap_err();
        assert!(matches!(refusal, AttentionError::Illegal { reason: Illegal::Alignment { tensor: 'K', .. }, .. }));
    }

    #[test]
    fn what_other_entries_have_does_not_count() {
        let pages = |count| Some(Pages { count, size: 16, columns: 40 });
        let of = |batch, packed, pages| {
            let features = Features { packed_q: Some(packed), used_kv: true, pages, ..Features::NONE };
            of_one_entry(&Problem { batch, features, ..Problem::SEED }.in_bshd())
        };
        let one = of(1, 9, pages(40));
        // Nobody steps from one batch entry to the next.
        let strides = one.strides;
        assert_eq!(one, Problem { strides, ..of(7, 2000, pages(300)) });
        assert!(legal(&one, &Variant::smallest(Family::Tiled), &LIMITS).is_ok());
    }

    #[test]
    fn a_file_is_verified_when_it_is_loaded_and_leaves_the_default_where_it_does_not_hold() {
        let [first, second] = two();
        let (library, folder) = library(&[first, second]);
        let path = folder.path().join("records.json");
        let choice = |gpu: &str| choose_by_file(&library, gpu, &LIMITS, &path, &Problem::SEED).unwrap();
        let refused = |gpu: &str| {
            let chosen = choice(gpu);
            assert_eq!(chosen.variant, first);
            chosen.choice.to_string()
        };
        assert!(refused(GPU).starts_with("a default: the dispatch records cannot be used: "), "{}", refused(GPU));

        let good = dispatch(&second);
        good.write(&path).unwrap();
        assert_eq!(choice(GPU).variant, second);
        assert_eq!(refused("NVIDIA L4"), format!("a default: the dispatch records are of {GPU}, this is NVIDIA L4"));

        let text = fs::read_to_string(&path).unwrap();
        let sha256 = &good.entries[0].sha256;
        for (from, to, why) in [
            (sha256.as_str(), "00", "is stale: its code was 00, it is "),
            ("\"schema\": 1", "\"schema\": 7", "its schema is 7; 1 is understood"),
            ("4.5", "0.0", "hot_us is 0; it must be above 0"),
            ("4.5", "null", "invalid type: null"),
            ("tile_q=", "tile_z=", "is unknown: "),
        ] {
            assert!(text.contains(from), "{from}");
            fs::write(&path, text.replace(from, to)).unwrap();
            assert!(refused(GPU).contains(why), "{}", refused(GPU));
        }
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(refused(GPU).contains("EOF"), "{}", refused(GPU));
    }

    #[test]
    fn a_default_whose_code_is_missing_is_passed_over() {
        let [first, second] = two();
        let (only_second, _folder) = library(&[second]);
        let chosen = choose(&only_second, GPU, &LIMITS, None, &Problem::SEED).unwrap();
        assert_eq!(chosen.variant, second);
        let said = chosen.choice.to_string();
        assert!(said.starts_with(&format!("a fallback for {first}, as mma:f16:64x64:")), "{said}");
        assert!(said.ends_with("the catalog does not have it: no dispatch records were given"), "{said}");
        let (nothing, _folder) = library(&[]);
        let error = choose(&nothing, GPU, &LIMITS, None, &Problem::SEED).unwrap_err().to_string();
        assert!(error.contains(&first.kernel(&Problem::SEED).to_string()), "{error}");
        let odd = Problem::new(1, 1, 1, 65, spec::Dtype::F16);
        assert!(matches!(choose(&nothing, GPU, &LIMITS, None, &odd), Err(AttentionError::Problem { .. })));
    }

    #[test]
    fn files_round_trip_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SHIPPED).join("nvidia-h100-80gb-hbm3.json");
        let dispatch = dispatch(&two()[0]);
        assert_eq!(Dispatch::shipped(folder.path(), GPU).unwrap(), None);
        dispatch.write(&path).unwrap();
        assert_eq!(Dispatch::shipped(folder.path(), GPU).unwrap(), Some(dispatch));
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [("\"schema\": 1", "\"schema\": 2"), ("\"hot_us\"", "\"us\""), ("b1-hq8", "b1-qq8")] {
            fs::write(&path, text.replace(from, to)).unwrap();
            let error = Dispatch::read(&path).unwrap_err();
            assert!(matches!(error, DispatchError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn a_problem_has_one_record() {
        let mut dispatch = dispatch(&two()[0]);
        let entry = Entry { hot_us: 4.0, ..dispatch.entries[0].clone() };
        dispatch.put(entry.clone());
        assert_eq!(dispatch.entries, [entry]);
    }
}
