//! Tiles: where rows, columns and lanes are.

mod fragment;
mod shared;

pub use fragment::{Lane, matrix_row_a, matrix_row_k, matrix_row_v};
pub use shared::SharedTile;
