//! The shipped dispatch records as text, for programs that are to run without any of the project's files.
#![no_std]

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../dispatch/", $name)))),*]
    };
}

/// The files of `dispatch/` by name: one for each GPU model that has records.
pub const DISPATCH: &[(&str, &str)] = files!["nvidia-h200.json"];
