//! What is part of every program that links this library: compiled kernels, and records of which is the fastest. Programs
//! so find both wherever they run, without the project's files.

use std::path::Path;

use builder::{BuildError, Catalog};

use crate::dispatch::{Dispatch, DispatchError, file_name};

/// The shipped kernels. Reading their list takes some milliseconds: keep it for as long as plans are made.
pub fn catalog() -> Result<Catalog, BuildError> {
    Catalog::embedded(catalog::FILES)
}

/// The shipped dispatch records of the GPU with this name; `None` if there are none.
pub fn dispatch(gpu: &str) -> Result<Option<Dispatch>, DispatchError> {
    let name = file_name(gpu);
    let text = records::DISPATCH.iter().find(|(known, _)| *known == name);
    text.map(|(_, text)| Dispatch::parse(text, Path::new(&name))).transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use spec::{AppendArgs, DeviceLimits, Dtype, Family, Kernel, Problem, Sm};

    use super::*;
    use crate::attention::Kernels;
    use crate::dispatch::choose;

    /// Names of the files in a folder of the project that end so.
    fn names(folder: &str, ending: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let files = fs::read_dir(folder).into_iter().flatten();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(ending)).collect()
    }

    #[test]
    fn all_shards_and_records_are_part_of_the_program() {
        let shards: BTreeSet<_> = catalog::FILES.iter().map(|(name, _)| name.to_string()).collect();
        let mut expected = names("catalog", ".shard");
        expected.insert("manifest.json".into());
        assert_eq!(shards, expected, "catalog/src/lib.rs names them");
        let records: BTreeSet<_> = records::DISPATCH.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(records, names("records/dispatch", ".json"), "records/src/lib.rs names them");
    }

    #[test]
    fn records_are_found_by_the_name_of_the_gpu() {
        for (name, text) in records::DISPATCH {
            let records = Dispatch::parse(text, Path::new(name)).unwrap();
            assert_eq!(dispatch(records.gpu()).unwrap(), Some(records));
        }
        assert_eq!(dispatch("a GPU that nobody has").unwrap(), None);
    }

    #[test]
    fn what_appends_is_part_of_the_program() {
        let catalog = catalog().unwrap();
        for sm in Sm::ALL {
            let text = catalog.ptx(&catalog.find(&Kernel::Append, sm).unwrap()).unwrap();
            assert_eq!(builder::ptx::parameter_bytes(&text), [size_of::<AppendArgs>()], "{sm}");
        }
    }

    #[test]
    fn tensor_cores_for_any_head_dim_on_any_gpu_are_part_of_the_program() {
        let catalog = catalog().unwrap();
        for sm in Sm::ALL {
            for head_dim in (8..=256).step_by(8) {
                for (seqlen, dtype) in [(1, Dtype::F16), (128, Dtype::Bf16), (8192, Dtype::Bf16), (8192, Dtype::F16)] {
                    let problem = Problem::new(1, 16, seqlen, head_dim, dtype);
                    let chosen = choose(&catalog, "untuned", &DeviceLimits::of(sm), None, &problem).unwrap();
                    let said = format!("{problem} on {sm}: {}, {}", chosen.variant, chosen.choice);
                    assert_ne!(chosen.variant.family(), Family::Tiled, "{said}");
                }
            }
        }
        let chosen = choose(&catalog, "untuned", &DeviceLimits::H100, None, &Problem::SEED).unwrap();
        let text = catalog.ptx(&chosen.artifact).unwrap();
        assert_eq!(builder::sha256(text.as_bytes()), catalog.sha256(&chosen.artifact));
        let parameters = [size_of::<spec::AttentionArgs>(), size_of::<spec::TensorMaps>()];
        assert_eq!(builder::ptx::parameter_bytes(&text), parameters);
    }
}
