//! What ptxas says of a kernel: the compiler gate and the search learn from it, and no GPU is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::files::{list, read_text};
use crate::machine::{self, Machine};
use crate::process::{output, stdout};
use crate::toolchain::on_path;
use crate::{BuildError, Project};

/// What ptxas makes of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of ptxas, e.g. `13.5.37`.
    pub ptxas: String,
    /// Registers of one thread.
    pub registers: u32,
    /// Stack frame of one thread in bytes.
    pub stack_bytes: u32,
    /// Bytes one thread spills to local memory.
    pub spill_store_bytes: u32,
    /// Bytes one thread reads back.
    pub spill_load_bytes: u32,
    /// Static shared memory of a block in bytes; dynamic shared memory is the launch's.
    pub shared_bytes: u32,
    /// Numbered remarks and warnings, e.g. `(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized ...`, and what in the
    /// machine code is not as planned.
    pub notes: Vec<String>,
    /// Of kernels on warpgroup tensor cores, where there is a disassembler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// The assembler of PTX, where it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ptxas {
    program: PathBuf,
    version: String,
}

impl Ptxas {
    /// The first of: what `setup` fetched, `CUDA_HOME`, `PATH`. `None` where there is none: facts are then absent.
    pub fn find(project: &Project) -> Result<Option<Self>, BuildError> {
        let fetched = list(&project.target().join("ptxas/nvidia"))?.into_iter().map(|cuda| cuda.join("bin/ptxas"));
        let home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/ptxas"));
        let candidate = fetched.chain(home).find(|program| program.is_file()).or_else(|| on_path("ptxas"));
        candidate.map(|program| Self::at(&program)).transpose()
    }

    fn at(program: &Path) -> Result<Self, BuildError> {
        let said = stdout(Command::new(program).arg("--version"))?;
        let version = said
            .split(|c: char| c.is_whitespace() || c == ',')
            .find_map(|word| word.strip_prefix('V').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
        match version {
            Some(version) => Ok(Self { program: program.to_owned(), version: version.to_owned() }),
            None => Err(BuildError::Tool {
                tool: program.display().to_string(),
                reason: "does not say its version".to_owned(),
            }),
        }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version, e.g. `13.5.37`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Assembles the modules side by side; one result each, in their order.
    pub(crate) fn facts(&self, modules: &[PathBuf]) -> Vec<Result<Facts, BuildError>> {
        modules.par_iter().map(|module| self.assemble(module)).collect()
    }

    fn assemble(&self, module: &Path) -> Result<Facts, BuildError> {
        let text = read_text(module)?;
        let target = text.lines().find_map(|line| line.strip_prefix(".target ")).unwrap_or_default();
        let target = target.split(',').next().unwrap_or_default().trim();
        let code = tempfile::NamedTempFile::new().map_err(BuildError::io("create a file in", &std::env::temp_dir()))?;
        let mut ptxas = Command::new(&self.program);
        let run = output(ptxas.args(["-v", "-o"]).arg(code.path()).arg(format!("-arch={target}")).arg(module))?;
        let said = String::from_utf8_lossy(&run.stderr);
        if !run.status.success() {
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
            return Err(BuildError::Assembly { module: module.to_owned(), reason: line.to_owned() });
        }
        let mut facts = read(&said, &self.version).ok_or_else(|| BuildError::Assembly {
            module: module.to_owned(),
            reason: "its report does not say how many registers the kernel takes".to_owned(),
        })?;
        if let Some((machine, notes)) = self.disassemble(code.path(), &text)? {
            facts.machine = Some(machine);
            facts.notes.extend(notes);
        }
        Ok(facts)
    }

    /// Disassembly takes longer than assembly, so that only those are looked at that it says something of.
    fn disassemble(&self, code: &Path, ptx: &str) -> Result<Option<(Machine, Vec<String>)>, BuildError> {
        let disassembler = self.program.with_file_name("cuobjdump");
        if !machine::has_products(ptx) || !disassembler.is_file() {
            return Ok(None);
        }
        Ok(Some(machine::read(ptx, &stdout(Command::new(disassembler).arg("-sass").arg(code))?)))
    }
}

/// Reads the report of `ptxas -v` on a module of one entry.
fn read(said: &str, ptxas: &str) -> Option<Facts> {
    let before = |unit: &str| {
        said.lines().filter(|line| !line.contains("gmem")).find_map(|line| {
            let (head, _) = line.split_once(unit)?;
            head.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        })
    };
    let mut notes: Vec<String> = Vec::new();
    for line in said.lines() {
        if let Some(start) = line.find("(C7") {
            let note = line[start..].split(" in the function").next().unwrap_or_default().to_owned();
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    Some(Facts {
        ptxas: ptxas.to_owned(),
        registers: before(" registers")?,
        stack_bytes: before(" bytes stack frame").unwrap_or(0),
        spill_store_bytes: before(" bytes spill stores").unwrap_or(0),
        spill_load_bytes: before(" bytes spill loads").unwrap_or(0),
        shared_bytes: before(" bytes smem").unwrap_or(0),
        notes,
        machine: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources for the wgmma pipeline in the function 'attention'
ptxas info    : Compiling entry function 'attention' for 'sm_90a'
ptxas info    : Function properties for attention
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 168 registers, used 3 barriers, 12 bytes cumulative stack size, 48 bytes smem
ptxas info    : Compile time = 1.632 ms
";

    #[test]
    fn a_report_is_read() {
        let facts = read(REPORT, "13.5.37").unwrap();
        assert_eq!(
            facts,
            Facts {
                ptxas: "13.5.37".to_owned(),
                registers: 168,
                stack_bytes: 24,
                spill_store_bytes: 20,
                spill_load_bytes: 16,
                shared_bytes: 48,
                notes: vec![
                    "(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
                     insufficient register resources for the wgmma pipeline"
                        .to_owned()
                ],
                machine: None,
            }
        );
    }

    #[test]
    fn no_register_count_is_no_report() {
        assert_eq!(read("ptxas info : 0 bytes gmem", "13"), None);
    }
}
