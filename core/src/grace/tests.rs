//! What the estimator promises.

use super::*;
