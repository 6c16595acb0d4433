//! The steps of attention, one concern per file. Families wire them.

mod containment;
mod destination;
mod exponential;
mod features;
mod fragment;
mod load;
mod mask;
mod merge;
mod output;
mod packed;
mod products;
mod softmax;
mod work;

pub use containment::{add_seen, add_weighted, all_finite, any_thread, make_finite};
pub use destination::{Destination, Target};
pub use exponential::exponential;
pub use features::{Featured, Features, LOGITS_LOG2, Operand, Plain, Scores};
pub use fragment::{
    FragmentScores, across_quad, finish_rows, finish_scores, pack_operand, rescale, softmax, softmax_against,
    softmax_raised,
};
pub use load::{Loader, Source, Span, copy_tile, load_tile};
pub use mask::Mask;
pub use merge::{Partials, merge, merge_for_cluster};
pub use output::{complete, send_output, stage_output, store_output};
pub use packed::{PackedRows, PackedTile};
pub use products::{Multiplied, copy_panels, issue_output, issue_scores, pack_probabilities, scores_by_warp};
pub use softmax::{Rescale, RowState, Scale};
pub use work::{Coordinates, Rows, Work};
