//! What a node keeps and answers.
