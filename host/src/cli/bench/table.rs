//! A bench beside peers as a table for README: per suite and element type, how many times our time the fastest peer takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use spec::{Dtype, Problem};

use super::{
    row::{Row, Shape},
    suites::{Suite, problems},
};

/// Where benches are, within the project: a folder each, whose name has the date.
const BENCHES: &str = "records/bench";
const OURS: &str = "ours.jsonl";
const PEERS: &str = "peers.jsonl";
/// The lines of README between which the table is.
const BEGIN: &str = "<!-- written by `host record table` -->";
const END: &str = "<!-- end -->";

/// The benches of the project at `root`, the newest first.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(BENCHES);
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| folder.display().to_string())?.file_name().to_string_lossy().into_owned();
        names.push((date(&name).map(str::to_owned), name));
    }
    ensure!(!names.is_empty(), "{}: there is no bench", folder.display());
    names.sort_unstable();
    Ok(names.into_iter().rev().map(|(_, name)| Path::new(BENCHES).join(name)).collect())
}

/// The first date in a name.
fn date(name: &str) -> Option<&str> {
    const FORM: &str = "dddd-dd-dd";
    let alike = |(byte, form): (u8, u8)| if form == b'd' { byte.is_ascii_digit() } else { byte == form };
    let is_date = |part: &&str| part.bytes().zip(FORM.bytes()).all(alike);
    (0..name.len()).filter_map(|from| name.get(from..from + FORM.len())).find(is_date)
}

/// README with the table between its marks.
pub(in crate::cli) fn put(readme: &str, table: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).with_context(|| format!("there is no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("there is no line {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// What was measured in one go.
#[derive(Debug, Default)]
struct Timings {
    /// What was measured on and with.
    about: Map<String, Value>,
    /// Hot time of the fastest in microseconds, and which that is.
    fastest: BTreeMap<Shape, (f64, String)>,
    /// Which have times, of which element types.
    backends: BTreeMap<String, BTreeSet<String>>,
}

impl Timings {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut timings = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            timings.add(line).with_context(|| format!("{}: line {}", path.display(), number + 1))?;
        }
        ensure!(!timings.fastest.is_empty(), "{}: it holds no time", path.display());
        Ok(timings)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let mut value: Map<String, Value> = serde_json::from_str(line)?;
        if !value.contains_key("backend") {
            self.about.append(&mut value);
            return Ok(());
        }
        let Row { shape, backend, result } = serde_json::from_str(line)?;
        let Some(us) = result.hot_us() else { return Ok(()) };
        ensure!(us.is_finite() && us > 0.0, "hot_us is {us}; it must be above 0");
        self.backends.entry(backend.clone()).or_default().insert(shape.dtype.clone());
        let fastest = self.fastest.entry(shape).or_insert((f64::INFINITY, String::new()));
        if us < fastest.0 {
            *fastest = (us, backend);
        }
        Ok(())
    }

    fn about(&self, key: &str) -> String {
        match &self.about.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "unknown".to_owned(),
        }
    }
}

/// A shape that both sides have a time of.
struct Compared<'a> {
    problem: Problem,
    ours_us: f64,
    peer_us: f64,
    peer: &'a str,
}

impl Compared<'_> {
    /// Above 1 we are faster.
    fn ratio(&self) -> f64 {
        self.peer_us / self.ours_us
    }
}

/// Ours and the peers' of one bench.
#[derive(Debug)]
struct Bench {
    /// Its folder, from the project's root.
    folder: PathBuf,
    ours: Timings,
    peers: Timings,
}

/// Shapes that say one thing, none of which an earlier group has.
#[derive(Debug)]
struct Group {
    name: String,
    /// By element type, in the order of [`Dtype::HALVES`].
    shapes: [Vec<Problem>; Dtype::HALVES.len()],
}

impl Group {
    fn all() -> Vec<Self> {
        let mut taken = BTreeSet::new();
        let mut group = |name: &str, suite: Suite, head_dim: Option<u32>| {
            let shapes = Dtype::HALVES.map(|dtype| {
                let mut shapes = problems(suite, dtype);
                shapes.retain(|problem| head_dim.is_none_or(|d| problem.head_dim_qk == d));
                shapes.retain(|problem| taken.insert(Shape::of(problem)));
                shapes
            });
            Self { name: name.to_owned(), shapes }
        };
        vec![
            group("seed", Suite::Seed, None),
            group("short", Suite::Short, None),
            group("prefill d64", Suite::Prefill, Some(64)),
            group("prefill d128", Suite::Prefill, Some(128)),
            group("prefill d256", Suite::Prefill, Some(256)),
            group("gqa", Suite::Gqa, None),
            group("decode", Suite::Decode, None),
        ]
    }

    /// Its name, how many shapes it has, and how long they are.
    fn title(&self) -> String {
        let keys = || self.shapes[0].iter().map(|problem| problem.seqlen_kv);
        let length = |keys: u32| if keys >= 10_000 { format!("{}k", keys / 1024) } else { keys.to_string() };
        let [low, high] = [keys().min(), keys().max()].map(|keys| length(keys.unwrap_or_default()));
        let range = if low == high { low } else { format!("{low} to {high}") };
        format!("{} ({} shapes, S {range})", self.name, self.shapes[0].len())
    }
}

impl Bench {
    /// The bench in a folder of the project at `root`.
    fn read(root: &Path, folder: PathBuf) -> Result<Self> {
        let [ours, peers] = [OURS, PEERS].map(|name| Timings::read(&root.join(&folder).join(name)));
        let (ours, peers) = (ours?, peers?);
        let [here, there] = [&ours, &peers].map(|timings| timings.about("gpu"));
        ensure!(here == there, "{}: ours are of {here}, the peers' of {there}", folder.display());
        Ok(Self { folder, ours, peers })
    }

    fn compared(&self, shapes: &[Problem]) -> Vec<Compared<'_>> {
        let compared = |problem: &Problem| {
            let shape = Shape::of(problem);
            let ((ours_us, _), (peer_us, peer)) = (self.ours.fastest.get(&shape)?, self.peers.fastest.get(&shape)?);
            Some(Compared { problem: *problem, ours_us: *ours_us, peer_us: *peer_us, peer })
        };
        shapes.iter().filter_map(compared).collect()
    }

    /// Where it is and what it was measured with.
    fn source(&self) -> String {
        let folder = self.folder.display();
        format!("[ours]({folder}/{OURS}), [theirs]({folder}/{PEERS}), with PyTorch {}", self.peers.about("torch"))
    }

    fn measured(&self, group: &Group) -> bool {
        group.shapes.iter().any(|shapes| !self.compared(shapes).is_empty())
    }

    /// The peers that have times, and of which element types if not of all.
    fn peer_names(&self) -> String {
        let all: BTreeSet<&String> = self.peers.backends.values().flatten().collect();
        let name = |(backend, dtypes): (&String, &BTreeSet<String>)| {
            let name = match backend.as_str() {
                "cudnn" => "cuDNN",
                "flash" => "FlashAttention-2",
                "fa3" => "FlashAttention-3",
                "efficient" => "memory-efficient attention",
                other => other,
            };
            let only: Vec<&str> = dtypes.iter().map(String::as_str).collect();
            if only.len() < all.len() { format!("{name} ({})", only.join(", ")) } else { name.to_owned() }
        };
        let names: Vec<String> = self.peers.backends.iter().map(name).collect();
        match names.split_last() {
            Some((last, [_, ..])) => format!("{} and {last}", names[..names.len() - 1].join(", ")),
            _ => names.concat(),
        }
    }
}

/// Of each group of shapes the newest bench in which some of it was measured, on the GPU of the newest of all.
#[derive(Debug)]
pub(in crate::cli) struct Newest {
    /// Those that are needed, the newest first.
    benches: Vec<Bench>,
    /// The groups of which something was measured, each with the number of its bench.
    groups: Vec<(Group, usize)>,
}

impl Newest {
    /// Those of the project at `root`.
    pub(in crate::cli) fn read(root: &Path) -> Result<Self> {
        let (mut benches, mut groups, mut missing) = (Vec::<Bench>::new(), Vec::new(), Group::all());
        for folder in folders(root)? {
            if missing.is_empty() {
                break;
            }
            let bench = Bench::read(root, folder)?;
            if benches.first().is_some_and(|newest| newest.ours.about("gpu") != bench.ours.about("gpu")) {
                continue;
            }
            let (found, others): (Vec<_>, Vec<_>) = missing.into_iter().partition(|group| bench.measured(group));
            missing = others;
            if benches.is_empty() || !found.is_empty() {
                groups.extend(found.into_iter().map(|group| (group, benches.len())));
                benches.push(bench);
            }
        }
        Ok(Self { benches, groups })
    }

    /// For README.
    pub(in crate::cli) fn markdown(&self) -> String {
        let newest = &self.benches[0];
        let mut text = format!(
            "On {}, driver {}, against the fastest of {} ({}):\n\
             the geometric mean of their time over ours, and the worst shape's. Above 1 we are faster.\n\n| suite |",
            newest.ours.about("gpu"),
            newest.ours.about("driver"),
            newest.peer_names(),
            newest.source(),
        );
        text += &Dtype::HALVES.map(|dtype| format!(" {} | worst |", dtype.name())).concat();
        text += &format!("\n|---|{}\n", "---|---|".repeat(Dtype::HALVES.len()));
        for (group, bench) in &self.groups {
            text += &format!("| {} |", group.title());
            for shapes in &group.shapes {
                let compared = self.benches[*bench].compared(shapes);
                let Some(worst) = compared.iter().map(Compared::ratio).min_by(f64::total_cmp) else {
                    text += " not measured | |";
                    continue;
                };
                let (count, all) = (compared.len(), shapes.len());
                let part = if count < all { format!(", {count} of {all}") } else { String::new() };
                text += &format!(" x{:.2}{part} | x{worst:.2} |", geometric_mean(&compared));
            }
            text.push('\n');
        }
        for (number, bench) in self.benches.iter().enumerate().skip(1) {
            let of = self.groups.iter().filter(|(_, bench)| *bench == number).map(|(group, _)| group.name.as_str());
            text += &format!("\nOf another run: {} ({}).\n", of.collect::<Vec<_>>().join(", "), bench.source());
        }
        text
    }

    /// For the terminal: every shape.
    pub(in crate::cli) fn shapes(&self) -> String {
        let mut text = String::new();
        for (group, bench) in &self.groups {
            let compared = group.shapes.iter().map(|shapes| self.benches[*bench].compared(shapes));
            for compared in compared.filter(|all| !all.is_empty()) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{} {}", group.name, compared[0].problem.dtype.name());
                for of in &compared {
                    let Compared { problem, ours_us, peer_us, peer } = of;
                    let ratio = of.ratio();
                    let _ = writeln!(
                        text,
                        "  {:<60} {ours_us:10.2} us  {peer:<10} {peer_us:10.2} us  x{ratio:.2}",
                        problem.to_string()
                    );
                }
            }
        }
        text
    }
}

fn geometric_mean(compared: &[Compared<'_>]) -> f64 {
    let logarithms: f64 = compared.iter().map(|of| of.ratio().ln()).sum();
    (logarithms / compared.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::bench::row::Measured;

    /// A project with a bench of these lines, which is its newest, and one of the day before with a shape to decode.
    fn project(lines: [&[(Problem, &str, f64)]; 2]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let step = &[(problems(Suite::Decode, Dtype::F16)[0], "v", 3.0), (Problem::SEED, "v", 1.0)][..];
        for (folder, lines) in
            [("b-1999-12-31", [step; 2]), ("a-2000-01-01", lines), ("a-2000-01-00-z", [&step[1..]; 2])]
        {
            let folder = root.path().join(BENCHES).join(folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, rows) in [OURS, PEERS].iter().zip(lines) {
                let row = |(problem, backend, us): &(Problem, &str, f64)| {
                    let row = Row::measured(
                        problem,
                        (*backend).to_owned(),
                        Measured { hot_us: *us, cold_us: 9.0, max_err: 0.0 },
                    );
                    serde_json::to_string(&row).unwrap() + "\n"
                };
                let about = "{\"gpu\": \"G\", \"driver\": \"1\", \"torch\": \"2\"}\n";
                fs::write(folder.join(name), about.to_owned() + &rows.iter().map(row).collect::<String>()).unwrap();
            }
        }
        root
    }

    #[test]
    fn the_newest_bench_is_compared_shape_by_shape() {
        let [full, causal] = [0, 1].map(|i| problems(Suite::Seed, Dtype::F16)[i]);
        let short = Problem::new(4, 8, 1024, 128, Dtype::Bf16);
        let root = project([
            &[(full, "v", 4.0), (causal, "v", 5.0), (causal, "w", 4.0), (short, "v", 20.0)],
            &[(full, "flash", 9.0), (full, "cudnn", 8.0), (causal, "cudnn", 32.0), (short, "fa3", 10.0)],
        ]);
        let newest = Newest::read(root.path()).unwrap();
        let expected = "\
On G, driver 1, against the fastest of cuDNN (float16), FlashAttention-3 (bfloat16) and FlashAttention-2 (float16) \
([ours](records/bench/a-2000-01-01/ours.jsonl), [theirs](records/bench/a-2000-01-01/peers.jsonl), with PyTorch 2):
the geometric mean of their time over ours, and the worst shape's. Above 1 we are faster.

| suite | f16 | worst | bf16 | worst |
|---|---|---|---|---|
| seed (2 shapes, S 512) | x4.00 | x2.00 | not measured | |
| short (15 shapes, S 128 to 1024) | not measured | | x0.50, 1 of 15 | x0.50 |
| decode (8 shapes, S 1024 to 32k) | x1.00, 1 of 8 | x1.00 | not measured | |

Of another run: decode ([ours](records/bench/b-1999-12-31/ours.jsonl), [theirs](records/bench/b-1999-12-31/peers.jsonl), with PyTorch 2).
";
        assert_eq!(newest.markdown(), expected);
        assert_eq!(newest.shapes().matches(" us  x").count(), 4);

        for name in [OURS, PEERS] {
            let path = root.path().join(BENCHES).join("b-1999-12-31").join(name);
            fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"G\"", "\"H\"")).unwrap();
        }
        let of_one_gpu = Newest::read(root.path()).unwrap().markdown();
        assert!(of_one_gpu.contains("| seed") && !of_one_gpu.contains("decode"), "{of_one_gpu}");
    }

    #[test]
    fn times_of_two_gpus_are_not_compared_and_nonsense_is_named() {
        let one = &[(Problem::SEED, "v", 4.0)][..];
        let root = project([one, one]);
        let folder = folders(root.path()).unwrap().swap_remove(0);
        let peers = root.path().join(&folder).join(PEERS);
        let text = fs::read_to_string(&peers).unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from));
            fs::write(&peers, text.replace(from, to)).unwrap();
            format!("{:#}", Bench::read(root.path(), folder.clone()).unwrap_err())
        };
        assert!(refused("\"G\"", "\"H\"").ends_with("ours are of G, the peers' of H"));
        assert!(refused("4.0", "0.0").contains("peers.jsonl: line 2: hot_us is 0; it must be above 0"));
        assert!(refused("\"hq\"", "\"heads\"").contains("peers.jsonl: line 2: "));
        assert!(refused("hot_us", "error").contains("peers.jsonl: "));
    }

    #[test]
    fn the_table_replaces_what_was_between_the_marks() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = put(&readme, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(put(&new, "new\n").unwrap(), new);
        assert!(put("a", "new").unwrap_err().to_string().starts_with("there is no line <!-- written"));
    }
}
