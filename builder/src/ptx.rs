//! From the PTX of a batch to one canonical module per entry point.
//!
//! The text of a module must depend on its kernel's code alone, because its hash is the identity that measurements
//! belong to: comments, labels, the names of constants and of the entry itself, which depend on the rest of the
//! batch or on where the sources lie, are replaced.

use std::collections::{BTreeSet, HashMap};

use spec::{Kernel, LaunchBounds};

/// Number of the canonical form; another form makes other hashes.
pub(crate) const FORM: u32 = 2;

/// Bytes at whose multiples the GPU expects a tensor map.
const TENSOR_MAP_ALIGNMENT: u32 = 64;

/// The name of every split module's entry point.
pub const ENTRY: &str = "attention";

/// What the compiler cannot be told about an entry point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    bounds: LaunchBounds,
    /// Its second parameter holds tensor maps, which TMA reads in place.
    tensor_maps: bool,
}

impl Launch {
    pub(crate) fn of(kernel: &Kernel) -> Self {
        Self { bounds: kernel.launch_bounds(), tensor_maps: kernel.takes_tensor_maps() }
    }

    fn directives(self) -> String {
        let LaunchBounds { threads, blocks_per_sm, cluster } = self.bounds;
        // Registers are shared out by the first two; without them setmaxnreg is ignored.
        let bounds = format!(".maxntid {threads}, 1, 1\n.minnctapersm {blocks_per_sm}\n");
        // An ordinary launch then starts clusters of this size.
        if cluster > 1 { bounds + &format!(".explicitcluster\n.reqnctapercluster {cluster}, 1, 1\n") } else { bounds }
    }

    /// The signature with its tensor maps aligned as TMA needs them; rustc refuses arguments of that alignment.
    fn signature(self, signature: &str, symbol: &str) -> Result<String, String> {
        if !self.tensor_maps {
            return Ok(signature.to_owned());
        }
        let declares_maps = |line: &&str| line.contains(&format!("{symbol}_param_1["));
        let line = signature.lines().find(declares_maps).ok_or("it does not take its tensor maps by value")?;
        let size = line.split_once(".b8").ok_or_else(|| malformed(line, "is no array of bytes"))?.1;
        Ok(signature.replace(line, &format!(".param .align {TENSOR_MAP_ALIGNMENT} .b8{size}")))
    }
}

/// The PTX of a batch, taken apart.
pub(crate) struct Module {
    /// `.version`, `.target` and `.address_size`.
    header: String,
    items: Vec<Item>,
}

struct Item {
    kind: Kind,
    name: String,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Entry,
    Function,
    Variable,
    /// Declared here, defined elsewhere: its name is a contract.
    Extern,
}

impl Module {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut module = Self { header: String::new(), items: Vec::new() };
        let (mut item, mut depth) = (String::new(), 0usize);
        for line in text.lines().map(without_comment) {
            match line.split_whitespace().next() {
                None | Some(".loc" | ".file") => continue,
                Some(".version" | ".target" | ".address_size") => {
                    module.header += line;
                    module.header.push('\n');
                    continue;
                }
                Some(_) => {}
            }
            item += line;
            item.push('\n');
            depth += line.matches('{').count();
            depth = depth.saturating_sub(line.matches('}').count());
            let ends = line.ends_with(';') || line.ends_with('}');
            if depth == 0 && ends {
                module.items.push(Item::parse(std::mem::take(&mut item))?);
            }
        }
        if item.is_empty() { Ok(module) } else { Err(malformed(&item, "has no end")) }
    }

    /// The module of one entry: its code, what the code refers to, and its launch bounds. `Err` says why it may be no
    /// kernel.
    pub(crate) fn entry(&self, symbol: &str, launch: Launch) -> Result<String, String> {
        let entry = self
            .items
            .iter()
            .find(|item| item.kind == Kind::Entry && item.name == symbol)
            .ok_or("the compiler left it out")?;
        if let Some(reason) = refusal(&entry.text) {
            return Err(reason.to_owned());
        }
        if let Some(barrier) = parted_barrier(&entry.text) {
            return Err(format!(
                "{barrier} stands in both arms of a branch: lanes that part there would wait for each other"
            ));
        }
        let used = self.used_by(entry);
        let mut names = HashMap::from([(symbol.to_owned(), ENTRY.to_owned())]);
        for (i, label) in labels(&entry.text).into_iter().enumerate() {
            names.insert(label.to_owned(), format!("$L__BB0_{i}"));
        }
        let variables = used.iter().filter(|item| item.kind == Kind::Variable);
        names.extend(variables.enumerate().map(|(i, item)| (item.name.clone(), format!("{ENTRY}_data_{i}"))));

        let mut text = self.header.clone();
        for item in used {
            renamed(&item.text, symbol, &names, &mut text);
        }
        let (signature, body) = entry.text.split_once('{').ok_or_else(|| malformed(&entry.text, "has no body"))?;
        renamed(&launch.signature(signature, symbol)?, symbol, &names, &mut text);
        text += &launch.directives();
        text.push('{');
        renamed(body, symbol, &names, &mut text);
        Ok(text)
    }

    /// Variables that the entry refers to, directly or through another's initial value, in the module's order.
    fn used_by(&self, entry: &Item) -> Vec<&Item> {
        let mut used = BTreeSet::new();
        let mut texts = vec![&entry.text];
        while let Some(text) = texts.pop() {
            let words: BTreeSet<_> = words(text).filter_map(|(word, is_name)| is_name.then_some(word)).collect();
            for (i, item) in self.items.iter().enumerate() {
                let is_data = matches!(item.kind, Kind::Variable | Kind::Extern);
                if is_data && words.contains(item.name.as_str()) && used.insert(i) {
                    texts.push(&item.text);
                }
            }
        }
        used.into_iter().map(|i| &self.items[i]).collect()
    }
}

impl Item {
    fn parse(text: String) -> Result<Self, String> {
        let (kind, name) = if let Some((_, rest)) = text.split_once(".entry ") {
            (Kind::Entry, rest.split('(').next())
        } else if let Some((_, rest)) = text.split_once(".func ") {
            // A return value's declaration stands before the name.
            let rest = rest.strip_prefix('(').and_then(|r| r.split_once(')')).map_or(rest, |(_, r)| r);
            (Kind::Function, rest.split('(').next())
        } else {
            let declared = text.split(['[', '=', ';']).next().unwrap_or_default();
            let kind = if declared.starts_with(".extern") { Kind::Extern } else { Kind::Variable };
            (kind, declared.split_whitespace().last())
        };
        match name.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => Ok(Self { kind, name: name.to_owned(), text }),
            None => Err(malformed(&text, "declares no name")),
        }
    }
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim_end().trim_start_matches(['\t', ' '])
}

/// A stack in local memory and calls are too slow in a kernel, and neither is meant.
fn refusal(text: &str) -> Option<&'static str> {
    text.lines().find_map(|line| {
        let first = line.split_whitespace().find(|word| !word.starts_with('@'))?;
        let is = |name: &str| first.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        match () {
            () if is(".local") => Some("keeps data in local memory (.local)"),
            () if is("ld.local") => Some("reads local memory (ld.local)"),
            () if is("st.local") => Some("writes local memory (st.local)"),
            () if is("call") => Some("calls a function that was not inlined"),
            () => None,
        }
    })
}

/// A barrier that the compiler has copied from behind a branch into its arms: both copies lead to the same label at once.
fn parted_barrier(text: &str) -> Option<&str> {
    let mut ways = BTreeSet::new();
    let lines: Vec<_> = text.lines().collect();
    lines.windows(2).find_map(|pair| {
        let barrier = pair[0].strip_suffix(';').filter(|line| line.starts_with("bar.sync"))?;
        let next = pair[1].strip_suffix(':').or_else(|| pair[1].strip_prefix("bra.uni")?.strip_suffix(';'))?;
        (!ways.insert((barrier, next.trim()))).then_some(barrier)
    })
}

/// Labels in the order of their definitions.
fn labels(text: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    for line in text.lines() {
        if let Some((label, _)) = line.split_once(':')
            && words(label).count() == 1
            && !labels.contains(&label)
        {
            labels.push(label);
        }
    }
    labels
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%')
}

/// Cuts the text into names and what stands between them; the flag tells which.
fn words(text: &str) -> impl Iterator<Item = (&str, bool)> {
    text.split_inclusive(|c| !is_name(c)).flat_map(|piece| {
        let end = piece.trim_end_matches(|c| !is_name(c)).len();
        let (name, rest) = piece.split_at(end);
        [(name, true), (rest, false)].into_iter().filter(|(part, _)| !part.is_empty())
    })
}

fn renamed(text: &str, symbol: &str, names: &HashMap<String, String>, out: &mut String) {
    for (word, is_name) in words(text) {
        let parameter = || word.strip_prefix(symbol).filter(|rest| rest.starts_with("_param_"));
        if let Some(name) = names.get(word).filter(|_| is_name) {
            out.push_str(name);
        } else if let Some(parameter) = parameter() {
            out.push_str(ENTRY);
            out.push_str(parameter);
        } else {
            out.push_str(word);
        }
    }
}

fn malformed(item: &str, reason: &str) -> String {
    format!("`{}` {reason}", item.lines().next().unwrap_or_default())
}

/// Sizes of the entry point's parameters in a canonical module, in bytes.
pub fn parameter_bytes(module: &str) -> Vec<usize> {
    let after_entry = module.split_once(&format!(".entry {ENTRY}(")).map_or("", |(_, rest)| rest);
    let parameters = after_entry.split_once(')').map_or("", |(parameters, _)| parameters);
    let size = |parameter: &str| parameter.split_once('[')?.1.split_once(']')?.0.parse().ok();
    parameters.split(',').filter_map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Launch =
        Launch { bounds: LaunchBounds { threads: 128, blocks_per_sm: 2, cluster: 1 }, tensor_maps: false };

    fn batch(first: &str, hash: &str, body: &str) -> String {
        format!(
            "//\n// Generated\n//\n\n.version 8.3\n.target sm_90a\n.address_size 64\n\n\
             .extern .shared .align 1024 .b8 smem[];\n\n\t// .globl\t{first}\n\
             .global .align 4 .b8 _RN{hash}3TAB[4] = {{1, 0, 0, 0}};\n\
             .global .align 8 .u64 _RN{hash}3PTR = generic(_RN{hash}3TAB);\n\
             .global .align 4 .b8 _RN{hash}5OTHER[4];\n\
             .visible .entry {first}(\n\t.param .u32 {first}_param_0\n)\n{{\n\tret;\n}}\n\
             .visible .entry mma_b(\n\t.param .u64 mma_b_param_0,\n\t.param .u32 mma_b_param_1\n)\n{{\n\
             \t.reg .b32 \t%r<3>;\n\tld.param.b32 \t%r1, [mma_b_param_1]; // a comment\n{body}}}\n"
        )
    }

    const BODY: &str = "$L__BB1_3:\n\tmov.u64 %rd1, _RNx3PTR;\n\t// begin inline asm\n\tmov.u32 %r2, smem;\n\t@%p1 bra $L__BB1_3;\n\tret;\n";

    #[test]
    fn sizes_of_parameters_are_read() {
        let module = ".visible .entry attention(\n.param .align 8 .b8 attention_param_0[176],\n\
                      .param .align 64 .b8 attention_param_1[384]\n)\n{\nld.param.u64 %r1, [attention_param_0+8];\n}";
        assert_eq!(parameter_bytes(module), [176, 384]);
        assert!(parameter_bytes(&module.replace("attention(", "other(")).is_empty());
    }

    #[test]
    fn an_entry_becomes_a_module_of_its_own() {
        let module = Module::parse(&batch("mma_a", "x", BODY)).unwrap();
        assert_eq!(
            module.entry("mma_b", PLAIN).unwrap(),
            ".version 8.3\n.target sm_90a\n.address_size 64\n\
             .extern .shared .align 1024 .b8 smem[];\n\
             .global .align 4 .b8 attention_data_0[4] = {1, 0, 0, 0};\n\
             .global .align 8 .u64 attention_data_1 = generic(attention_data_0);\n\
             .visible .entry attention(\n.param .u64 attention_param_0,\n.param .u32 attention_param_1\n)\n\
             .maxntid 128, 1, 1\n.minnctapersm 2\n{\n\
             .reg .b32 \t%r<3>;\nld.param.b32 \t%r1, [attention_param_1];\n\
             $L__BB0_0:\nmov.u64 %rd1, attention_data_1;\nmov.u32 %r2, smem;\n@%p1 bra $L__BB0_0;\nret;\n}\n"
        );
        assert!(!module.entry("mma_a", PLAIN).unwrap().contains("data"), "only what an entry uses comes with it");
    }

    #[test]
    fn the_text_does_not_depend_on_the_rest_of_the_batch_or_on_hashes() {
        let here = Module::parse(&batch("mma_a", "x", BODY)).unwrap();
        let elsewhere =
            BODY.replace("$L__BB1_3", "$L__BB7_3").replace("_RNx", "_RNy").replace("\t// begin inline asm\n", "");
        let elsewhere = Module::parse(&batch("mma_0", "y", &elsewhere)).unwrap();
        assert_eq!(here.entry("mma_b", PLAIN), elsewhere.entry("mma_b", PLAIN));
        let other = Module::parse(&batch("mma_a", "x", &BODY.replace("%r2", "%r3"))).unwrap();
        assert_ne!(here.entry("mma_b", PLAIN), other.entry("mma_b", PLAIN));
    }

    #[test]
    fn local_memory_and_calls_are_refused() {
        for (line, reason) in [
            (".local .align 16 .b8 \t__local_depot1[64];", "keeps data in local memory (.local)"),
            ("ld.local.u32 %r1, [%rd1];", "reads local memory (ld.local)"),
            ("@%p1 st.local.v2.b32 [%rd1], {%r1, %r2};", "writes local memory (st.local)"),
            ("call.uni (retval0), _RN3foo, (param0);", "calls a function that was not inlined"),
        ] {
            let module = Module::parse(&batch("mma_a", "x", &format!("\t{line}\n"))).unwrap();
            assert_eq!(module.entry("mma_b", PLAIN), Err(reason.to_owned()));
            assert!(module.entry("mma_a", PLAIN).is_ok(), "the others of the batch are not lost");
        }
    }

    #[test]
    fn a_barrier_copied_into_both_arms_of_a_branch_is_refused() {
        let arms = "\t@%p1 bra $L__BB1_1;\n\tbar.sync \t0;\n\tbra.uni \t$L__BB1_2;\n$L__BB1_1:\n\tadd.s32 %r1, %r1, 1;\n\tbar.sync \t0;\n\
                    $L__BB1_2:\n\tret;\n";
        let refusal = Module::parse(&batch("mma_a", "x", arms)).unwrap().entry("mma_b", PLAIN).unwrap_err();
        assert!(refusal.starts_with("bar.sync \t0 stands in both arms of a branch"), "{refusal}");
        // One of two that follow each other, and one of other threads.
        for other in ["bra.uni \t$L__BB1_3;", "bar.sync \t1, 64;\n\tbra.uni \t$L__BB1_2;"] {
            let apart = arms.replace("bar.sync \t0;\n\tbra.uni \t$L__BB1_2;", &format!("bar.sync \t0;\n\t{other}"));
            assert!(Module::parse(&batch("mma_a", "x", &apart)).unwrap().entry("mma_b", PLAIN).is_ok(), "{other}");
        }
    }

    #[test]
    fn an_entry_that_is_not_there_is_named() {
        let module = Module::parse(&batch("mma_a", "x", "")).unwrap();
        assert_eq!(module.entry("mma_c", PLAIN), Err("the compiler left it out".to_owned()));
    }

    #[test]
    fn a_torn_module_is_refused() {
        let whole = batch("mma_a", "x", BODY);
        let torn = &whole[..whole.len() - 3];
        assert_eq!(Module::parse(torn).err().as_deref(), Some("`.visible .entry mma_b(` has no end"));
    }

    #[test]
    fn clusters_and_tensor_maps_are_declared() {
        let text = "\
.version 8.3
.visible .entry wgmma_a(
.param .align 8 .b8 wgmma_a_param_0[176],
.param .align 8 .b8 wgmma_a_param_1[384]
)
{
mov.b64 %rd1, wgmma_a_param_1;
}
";
        let module = Module::parse(text).unwrap();
        let launch = Launch { bounds: LaunchBounds { cluster: 4, ..PLAIN.bounds }, tensor_maps: true };
        assert_eq!(
            module.entry("wgmma_a", launch).unwrap(),
            "\
.version 8.3
.visible .entry attention(
.param .align 8 .b8 attention_param_0[176],
.param .align 64 .b8 attention_param_1[384]
)
.maxntid 128, 1, 1
.minnctapersm 2
.explicitcluster
.reqnctapercluster 4, 1, 1
{
mov.b64 %rd1, attention_param_1;
}
"
        );
        let pointers = Module::parse(&text.replace("_param_1[384]", "_param_1")).unwrap();
        let refusal = pointers.entry("wgmma_a", launch);
        assert_eq!(refusal, Err("it does not take its tensor maps by value".to_owned()));
    }
}
