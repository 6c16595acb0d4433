//! The steps of attention, one concern per file. Families wire them.

mod exponential;
mod fragment;
mod load;
mod mask;
mod merge;
mod softmax;
mod work;

pub use exponential::exponential;
pub use fragment::{across_quad, finish_scores, pack_operand, rescale, softmax};
pub use load::{Loader, copy_tile, load_tile};
pub use mask::Mask;
pub use merge::{Partials, merge};
pub use softmax::{RowState, Scale};
pub use work::{Rows, Work};
