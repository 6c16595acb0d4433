//! What a run found, for people: a table for the terminal and one HTML file.

pub mod ablation;
pub mod html;
mod svg;
pub mod terminal;
mod words;
